"""Errors whose messages say what was expected, what came and what to do.

Each class also inherits the standard exception that a caller who has never heard of geoseg would
catch. The command line maps them to exit codes: `InputError` 3, `MachineError` 4.
"""


class GeosegError(Exception):
    """Root of every error that geoseg raises on purpose."""


class InputError(GeosegError, ValueError):
    """What the user gave does not fit: a file, a model or a combination of both."""


class UsageError(GeosegError, ValueError):
    """The options contradict each other or name something that does not exist."""


class MachineError(GeosegError, RuntimeError):
    """The machine could not do it: disk, memory or device."""


class BandMismatchError(InputError):
    """The raster's bands are not the ones the model was trained on."""


class DtypeMismatchError(InputError):
    """The raster stores another data type than the model expects."""


class GsdMismatchError(InputError):
    """The ground sample distance cannot be brought into the model's range."""


class GeoreferenceError(InputError):
    """The georeference is missing, ambiguous or cannot be kept to the bit."""


class RasterReadError(InputError, OSError):
    """A raster cannot be opened, or some of its pixels cannot be read."""


class ModelFileError(InputError):
    """A model file cannot be read or does not say how it is fed."""


class WeightsMismatchError(ModelFileError, KeyError):
    """A checkpoint does not hold what the network needs."""

    __str__ = Exception.__str__


class OutputExistsError(UsageError, FileExistsError):
    """An output or an unfinished run is already there."""


class PartsMismatchError(InputError):
    """The parts on disk were made with other settings or inputs."""


class OutOfMemoryError(MachineError, MemoryError):
    """The memory budget or the device does not suffice."""


class DiskFullError(MachineError, OSError):
    """The disk has no room; finished parts are kept."""


class BackendUnavailableError(MachineError):
    """A device, backend or optional package was asked for by name and cannot be used here."""


class InterruptedRunError(GeosegError):
    """The user stopped the run; finished parts are kept."""
