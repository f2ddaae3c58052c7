"""Which operators an uploaded graph may use: pure computation that onnxruntime ships, nothing that loops at will."""

import onnx

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
ML_DOMAIN = "ai.onnx.ml"
CONTRIB_DOMAIN = "com.microsoft"

UNBOUNDED_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
"""Refused: their trip count is data, so that neither time nor memory can be bounded before running."""

_DECODERS = frozenset({"ImageDecoder", "RegexFullMatch"})
"""Refused: parsers of foreign formats; a model needs none of them."""

CONTRIB_OPERATORS = frozenset(
    [
        "Attention",
        "BiasAdd",
        "BiasGelu",
        "BiasSoftmax",
        "BiasSplitGelu",
        "BitmaskBiasDropout",
        "BitmaskDropout",
        "CDist",
        "ComplexMul",
        "ComplexMulConj",
        "ConvTransposeWithDynamicPads",
        "CropAndResize",
        "DecoderAttention",
        "DecoderMaskedMultiHeadAttention",
        "DecoderMaskedSelfAttention",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "DynamicTimeWarping",
        "EmbedLayerNormalization",
        "ExpandDims",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "FusedMatMulActivation",
        "GatedRelativePositionBias",
        "GatherBlockQuantized",
        "GatherND",
        "Gelu",
        "GridSample",
        "GroupNorm",
        "GroupQueryAttention",
        "Inverse",
        "Irfft",
        "LongformerAttention",
        "MatMulBnb4",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MaxpoolWithMask",
        "MoE",
        "MulInteger",
        "MultiHeadAttention",
        "MurmurHash3",
        "NGramRepeatBlock",
        "NhwcConv",
        "NhwcFusedConv",
        "NhwcMaxPool",
        "PackedAttention",
        "PackedMultiHeadAttention",
        "Pad",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QMoE",
        "QuantizeLinear",
        "QuantizeWithOrder",
        "DequantizeWithOrder",
        "QuickGelu",
        "Range",
        "ReduceSumInteger",
        "RelativePositionBias",
        "RemovePadding",
        "RestorePadding",
        "Rfft",
        "RotaryEmbedding",
        "SkipGroupNorm",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "SparseAttention",
        "SparseToDenseMatMul",
        "TorchEmbedding",
        "TransposeMatMul",
        "Trilu",
        "UnfoldTensor",
        "Unique",
        "WordConvEmbedding",
    ]
)
"""Contributed operators of onnxruntime that only compute; none runs a decoder loop, a subgraph or foreign code."""

_UNREGISTERED_STANDARD = frozenset({"SimplifiedLayerNormalization"})
"""What onnxruntime's fusions write into the standard domain without a place in the standard."""


def _defined(domains: frozenset[str]) -> frozenset[str]:
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas() if schema.domain in domains)


STANDARD_OPERATORS = (_defined(STANDARD_DOMAINS) | _UNREGISTERED_STANDARD) - UNBOUNDED_LOOPS - _DECODERS
ML_OPERATORS = _defined(frozenset({ML_DOMAIN})) - {"TreeEnsemble"}
"""``TreeEnsemble`` of ai.onnx.ml 5 lays its nodes out in a way that ``trees`` does not check."""

ALLOWED: dict[str, frozenset[str]] = {
    "": STANDARD_OPERATORS,
    "ai.onnx": STANDARD_OPERATORS,
    ML_DOMAIN: ML_OPERATORS,
    CONTRIB_DOMAIN: CONTRIB_OPERATORS,
}
