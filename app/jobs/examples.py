"""Realistic bodies for OpenAPI; the tests check that the schemas accept them."""

from typing import Any

MODEL_ID = "mdl_01KAT6W4ZD0Q9V3H8M2N5R7T1X"
TRAIN_ID = "dst_01KAT6W9B2C4D6E8F0G2H4J6K8"
STUDENT_ID = "mdl_01KAT6W7PD1R3T5V7X9Z2B4D6F"
EVALUATION_ID = "dst_01KAT6WEM1N3P5Q7R9S1T3V5W7"
JOB_ID = "job_01KAT6WP2A4B6C8D0E2F4G6H8J"

JOB_CREATE_EXAMPLES: list[Any] = [
    {
        "model": MODEL_ID,
        "data": {"calibration": TRAIN_ID, "evaluation": EVALUATION_ID},
        "recipe": [
            {"technique": "prune", "method": "magnitude", "sparsity": 0.5, "scope": "global"},
            {"technique": "quantize", "method": "static", "bits": 8, "granularity": "channel", "samples": 256},
        ],
        "target": {"hardware": "auto", "runtime": "onnxruntime"},
        "outputs": ["onnx"],
        "evaluation": {"metric": "accuracy", "batch_sizes": [1, 8]},
        "execution": {
            "strategy": "single",
            "world_size": 1,
            "timeout_seconds": 3600,
            "max_pending_seconds": 86400,
            "priority": "normal",
            "max_attempts": 3,
        },
        "seed": 0,
        "labels": {"team": "search"},
    },
    {"model": MODEL_ID, "recipe": [{"technique": "quantize"}]},
    {
        "model": MODEL_ID,
        "data": {"evaluation": EVALUATION_ID},
        "recipe": [{"technique": "prune", "method": "magnitude", "max_drop": 0.01}],
        "evaluation": {"metric": "accuracy"},
    },
    {
        "model": MODEL_ID,
        "data": {"train": TRAIN_ID, "evaluation": EVALUATION_ID},
        "recipe": [
            {"technique": "finetune", "method": "lora", "epochs": 3, "rank": 8, "learning_rate": 0.0005},
            {"technique": "prune", "method": "magnitude", "sparsity": 0.5},
            {"technique": "finetune", "method": "recover", "epochs": 1},
        ],
        "evaluation": {"metric": "accuracy"},
    },
    {
        "model": MODEL_ID,
        "data": {"train": TRAIN_ID, "evaluation": EVALUATION_ID},
        "recipe": [
            {"technique": "distill", "method": "logits", "student": STUDENT_ID, "temperature": 2.0, "epochs": 5},
            {"technique": "quantize", "method": "dynamic"},
        ],
    },
]

JOB_SPEC_EXAMPLE: dict[str, Any] = {
    **JOB_CREATE_EXAMPLES[0],
    "split": {
        "seed": 0,
        "roles": {
            "calibration": {"dataset": TRAIN_ID, "part": [0.0, 1.0]},
            "evaluation": {"dataset": EVALUATION_ID, "part": [0.0, 1.0]},
        },
        "summary": "Every role has a dataset of its own.",
    },
}

ANALYSIS_CREATE_EXAMPLES: list[Any] = [
    {"data": {"calibration": TRAIN_ID}, "bits": [2, 3, 4, 8], "group_size": 32, "sensitivity_samples": 64},
    {},
]

ANALYSIS_SPEC_EXAMPLE: dict[str, Any] = {
    **ANALYSIS_CREATE_EXAMPLES[0],
    "model": MODEL_ID,
    "recipe": [],
    "split": {
        "seed": 0,
        "roles": {
            "calibration": {"dataset": TRAIN_ID, "part": [0.0, 0.2]},
            "evaluation": {"dataset": TRAIN_ID, "part": [0.2, 1.0]},
        },
        "summary": f"{TRAIN_ID} was split into disjoint, seeded, stratified parts: 20 % calibration, 80 % evaluation.",
    },
}

JOB_READ_EXAMPLE: dict[str, Any] = {
    "id": JOB_ID,
    "object": "job",
    "status": "running",
    "done": False,
    "spec": JOB_SPEC_EXAMPLE,
    "progress": {
        "fraction": 0.42,
        "step": "recipe/1",
        "message": "Reading calibration batch 12 of 32",
        "eta_seconds": 11.5,
    },
    "attempt": 1,
    "queue": {"name": "cpu", "position": None},
    "created_at": "2026-11-24T09:30:00Z",
    "queued_at": "2026-11-24T09:30:00Z",
    "started_at": "2026-11-24T09:30:01Z",
    "finished_at": None,
    "outcome": None,
    "termination_reason": None,
    "metrics": None,
    "warnings": [],
    "error": None,
    "artifacts": [],
    "environment": None,
    "labels": {"team": "search"},
}

EVENT_EXAMPLE: dict[str, Any] = {
    "id": "evt_01KAT6WR5M7P9Q1S3T5V7W9X1Z",
    "object": "event",
    "type": "job.progress",
    "job": JOB_ID,
    "sequence": 4,
    "created_at": "2026-11-24T09:30:02Z",
    "data": JOB_READ_EXAMPLE["progress"],
}

ESTIMATE_EXAMPLE: dict[str, Any] = {
    "object": "estimate",
    "seconds": {"low": 9.1, "typical": 13.0, "high": 19.5},
    "peak_memory_bytes": {"low": 156_000_000.0, "typical": 433_000_000.0, "high": 1_225_000_000.0},
    "size_bytes": {"low": 5_500_000.0, "typical": 6_000_000.0, "high": 9_000_000.0},
    "fits": True,
    "basis": {"parameters": 5_600_000, "size_bytes": 22_400_000, "similar_jobs": 3},
}
