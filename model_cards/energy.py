"""Energy and carbon of a training, from its device hours and two numbers that no file tells."""

from dataclasses import dataclass
from typing import Any

from gve.eval.console import fail
from gve.model_cards.training import TrainingFacts


@dataclass(frozen=True)
class Energy:
    """What a training drew.

    Attributes:
        kilowatt_hours: Of all devices.
        watts: Mean power of a device.
        grams: Of CO2 equivalent; None where the grid's intensity is not known.
        grams_per_kwh: That intensity.
    """

    kilowatt_hours: float
    watts: float
    grams: float | None
    grams_per_kwh: float | None


def energy_of(training: TrainingFacts | None, watts: float | None, grams_per_kwh: float | None) -> Energy | None:
    """Multiply.

    Args:
        training: With its record.
        watts: Mean power of a device; None where it was not metered.
        grams_per_kwh: Carbon intensity of the grid.

    Returns:
        The energy, or None without a power.

    Raises:
        ValueError: If a number is not positive, or there is nothing to multiply it with.
    """
    for name, value in (("--watts", watts), ("--grams-per-kwh", grams_per_kwh)):
        if value is not None and not 0 < value < float("inf"):
            fail(f"{name}: got {value:g}; a number above 0 is accepted; leave it out where it is not known")
    if watts is None:
        if grams_per_kwh is not None:
            fail("--grams-per-kwh: given without --watts; both or --watts alone are accepted; add the mean power")
        return None
    hours = None if training is None else training.device_hours
    if hours is None:
        fail(
            "--watts: no record of the training says how long it took; a folder of gve train is accepted; leave it out"
        )
    kilowatt_hours = watts * hours / 1000
    grams = None if grams_per_kwh is None else kilowatt_hours * grams_per_kwh
    return Energy(kilowatt_hours, watts, grams, grams_per_kwh)


def emissions(energy: Energy | None, training: TrainingFacts | None) -> dict[str, Any] | None:
    """The entry `co2_eq_emissions` of a card's metadata.

    Args:
        energy: Of the training.
        training: With its record.

    Returns:
        The entry, or None where the carbon is not known.
    """
    if energy is None or energy.grams is None or training is None or training.record is None:
        return None
    return {
        "emissions": round(energy.grams, 3),
        "source": "device hours x stated power x stated intensity of the grid",
        "training_type": "pre-training" if training.record["base_model"] is None else "fine-tuning",
        "hardware_used": f"{training.record['processes']} x {training.record['device']}",
    }
