"""Sensitivities that earlier jobs measured, and what this one adds."""

from dataclasses import dataclass

from workers.compression.specs.sensitivity import Measurement, SensitivityMap


@dataclass
class KnownSensitivities:
    """What a job knows of the sensitivities of its model, as it was uploaded.

    Args:
        model: SHA-256 of the model; None where nobody keeps what is measured.
        data: Fingerprint of the rows to measure on.
        maps: What was measured before.
        made: What was measured now, together with what had been known of it.
    """

    model: str | None = None
    data: str | None = None
    maps: tuple[SensitivityMap, ...] = ()
    made: SensitivityMap | None = None

    def find(self, measured: Measurement) -> SensitivityMap | None:
        """The map of the same measurement."""
        if measured.model is None or measured.data is None:
            return None
        return next((found for found in self.maps if found.measured == measured), None)

    def keep(self, made: SensitivityMap) -> None:
        """Notes a map, if others can be told what it holds for."""
        if made.measured.model is not None and made.measured.data is not None:
            self.made = made
