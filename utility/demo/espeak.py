"""The eSpeak NG speech synthesizer, through the library that the `espeakng-loader` wheel carries."""

import ctypes
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from mynah.utility.errors import UserError

# From eSpeak NG's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2  # to the callback, in our own thread (RETRIEVAL = 1 would use another)
INITIALIZE_PHONEME_EVENTS = 0x0001
INITIALIZE_DONT_EXIT = 0x8000
POSITION_CHARACTER = 1
CHARACTERS_UTF8 = 1
RATE, PITCH, PITCH_RANGE = 1, 3, 4
EVENT_LIST_TERMINATED, EVENT_PHONEME = 0, 7
STRESS_MARKS = "',%="

# eSpeak NG copies the data folder's path into a buffer of 160 bytes and cuts what does not fit.
LONGEST_DATA_PATH = 140


class _Event(ctypes.Structure):
    """espeak_EVENT; the union at its end is read as the phoneme's name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Phoneme:
    """Where eSpeak began to say something: `start` in samples, `name` its own mnemonic without stress, "aI" say.

    Pauses begin with "_"; ";" is the palatal colour of what comes before.
    """

    start: int
    name: str


@dataclass(frozen=True)
class VoiceSettings:
    """How a text is spoken.

    voice: an eSpeak voice, e.g. "en-us", with "+variant" appended for another timbre, e.g. "en-us+f2".
    words_per_minute: 80 to 450. pitch and pitch_range: 0 to 100, within the variant's own range of pitches.
    """

    voice: str
    words_per_minute: int = 175
    pitch: int = 50
    pitch_range: int = 50


class Espeak:
    """A context manager that owns the library while it is open; the library holds one state a process.

    >>> with Espeak() as espeak:
    ...     wav = espeak.speak("Good morning.", VoiceSettings("en-us+f2"))  # (T,) float32 at espeak.sample_rate
    """

    def __init__(self) -> None:
        self._loader = _import_loader()
        self._chunks: list[np.ndarray] = []
        self.phonemes: list[Phoneme] = []
        """Those of what was spoken last, in order."""
        self._callback = SynthCallback(self._receive)
        self._short_data: tempfile.TemporaryDirectory | None = None
        self._library: ctypes.CDLL | None = None
        self.sample_rate = 0

    def __enter__(self) -> "Espeak":
        try:
            library = ctypes.CDLL(self._loader.get_library_path())
        except OSError as error:
            raise UserError(
                f"the library of the package espeakng-loader does not load here ({error}); "
                "give your own speech with -o datarc.file_path=FOLDER"
            ) from error
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        data = self._reachable_data_path()
        options = INITIALIZE_DONT_EXIT | INITIALIZE_PHONEME_EVENTS
        self.sample_rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), options)
        if self.sample_rate <= 0:
            raise RuntimeError(f"eSpeak NG could not read its voices in {data}")
        library.espeak_SetSynthCallback(self._callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # or its breath noise is seeded with the time
        self._library = library
        return self

    def __exit__(self, *exception: object) -> None:
        if self._library is not None:
            self._library.espeak_Terminate()
            self._library = None
        if self._short_data is not None:
            self._short_data.cleanup()
            self._short_data = None

    def speak(self, text: str, manner: VoiceSettings) -> np.ndarray:
        """Returns (T,) float32 in [-1, 1] at `self.sample_rate`; when each phoneme began is then in `self.phonemes`.

        The phase of the voice runs on from call to call, also over a reopening of the library, so the same
        calls give the same samples in a fresh process only.
        Raises ValueError for an unknown voice; an unknown variant is ignored by eSpeak itself.
        """
        self._chunks.clear()
        self.phonemes = []
        if self._library.espeak_SetVoiceByName(manner.voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {manner.voice!r}")
        values = ((RATE, manner.words_per_minute), (PITCH, manner.pitch), (PITCH_RANGE, manner.pitch_range))
        for parameter, value in values:
            self._library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode()
        status = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, POSITION_CHARACTER, 0, CHARACTERS_UTF8, None, None
        )
        if status != 0 or not self._chunks:
            raise RuntimeError(f"eSpeak NG said nothing for {text!r} (status {status})")
        return np.concatenate(self._chunks).astype(np.float32) / 32768.0

    def _receive(self, samples: object, count: int, events: object) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in itertools.takewhile(lambda event: event.type != EVENT_LIST_TERMINATED, events or ()):
            if event.type == EVENT_PHONEME:
                self.phonemes.append(Phoneme(event.sample, event.name.decode().lstrip(STRESS_MARKS)))
        return 0

    def _reachable_data_path(self) -> str:
        """The wheel's data folder; where its path is too long, a copy under a short one, kept while we are open."""
        data = self._loader.get_data_path()
        if len(data.encode()) <= LONGEST_DATA_PATH:
            return data
        self._short_data = tempfile.TemporaryDirectory(prefix="mynah-")
        return str(shutil.copytree(data, Path(self._short_data.name) / "espeak-ng-data"))


def _import_loader() -> ModuleType:
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "the demo speech is spoken by eSpeak NG, but the package espeakng-loader is not installed; "
            "install it (pip install espeakng-loader), or give your own speech with "
            "-o datarc.file_path=FOLDER"
        ) from error
    return espeakng_loader
