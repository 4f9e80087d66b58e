"""Selection and decoding of the packets of a video that contain the frames asked for.

Decoding is what reading a clip costs: going through the packets of ten seconds without it takes some milliseconds,
against some hundred. A list of the packets tells each frame's presentation time and where decoding can begin (key
frames), so it is known before decoding which frames are wanted and what they take.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

SEEK_COST = 2
"""Frames that could be decoded in the time of a seek: it empties the decoder and its threads' queues."""

# Of these, the decoder knows which frames no other one refers to, and can leave them out.
SKIPPABLE_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video")


@dataclass(frozen=True)
class PacketInfo:
    """A packet's times in ticks of the stream's time base (None: untold), and what its frame is.

    key: decoding can begin here; shown: its frame is for display (an edit list may take off the clip's ends).
    """

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    shown: bool = True


@dataclass(frozen=True)
class Timeline:
    """times: when each frame appears, ascending; end: when the last one goes; both in ticks of `tick` seconds."""

    times: Sequence[int]
    end: int
    tick: Fraction

    @property
    def seconds(self) -> float:
        return float((self.end - self.times[0]) * self.tick)

    def sample(self, num_frames: int, start_s: float | None = None, end_s: float | None = None) -> list[int]:
        """Indices of the frames shown at the middles of `num_frames` equal spans from start_s to end_s.

        start_s and end_s: seconds from the first frame on, 0 <= start_s < seconds; None is the start or the end.
        """
        start = self.times[0] + self._ticks(start_s or 0)
        end = self.end if end_s is None else min(self.end, self.times[0] + self._ticks(end_s))
        middles = [start + (end - start) * Fraction(2 * i + 1, 2 * num_frames) for i in range(num_frames)]
        return [bisect_right(self.times, middle) - 1 for middle in middles]

    def _ticks(self, seconds: float) -> Fraction:
        return Fraction(seconds).limit_denominator(1_000_000) / self.tick  # 0.1 is meant as a tenth


def list_packets(container: InputContainer, stream: VideoStream) -> list[PacketInfo]:
    """All packets of the stream, in the order of decoding, up to where the file breaks off."""
    return [_info(packet) for packet in _packets(container, stream)]


def shown_times(packets: Sequence[PacketInfo]) -> list[int]:
    """The presentation times of all frames, ascending; empty if the packets do not tell a different one of each."""
    times = [packet.pts for packet in packets if packet.shown]
    if None in times or len(set(times)) < len(times):
        return []
    return sorted(times)


def wanted_runs(packets: Sequence[PacketInfo], wanted: set[int]) -> list[range]:
    """The stretches of packets that must be decoded for the frames of the times `wanted`, ascending, apart.

    A frame needs everything from a key frame on that precedes it both in decoding and in time: one that precedes it
    in decoding only does not suffice ("open" groups of pictures). Stretches that lie so close that decoding what is
    between them is faster than seeking are one.
    """
    runs: list[range] = []
    keys: list[int] = []
    for index, packet in enumerate(packets):
        if packet.key and packet.pts is not None:
            keys.append(index)
        if not packet.shown or packet.pts not in wanted:
            continue
        first = next((key for key in reversed(keys) if packets[key].pts <= packet.pts), 0)
        while runs and first <= runs[-1].stop + SEEK_COST:
            first = min(first, runs.pop().start)
        runs.append(range(first, index + 1))
    return runs


def decode_runs(
    container: InputContainer,
    stream: VideoStream,
    packets: Sequence[PacketInfo],
    runs: Sequence[range],
    wanted: set[int],
) -> Iterator[VideoFrame]:
    """The frames of the times `wanted`; one that is damaged is left out, and all the rest once something fails.

    packets: of list_packets; runs: of wanted_runs.
    """
    can_skip = stream.codec_context.name in SKIPPABLE_CODECS
    for run in runs:
        first = packets[run.start]
        try:
            # The demuxers that keep an index by decoding time find the key frame by it, the others an earlier one.
            container.seek(first.pts if first.dts is None else first.dts, stream=stream)
        except av.FFmpegError:
            return
        for packet in _stretch(container, stream, packets, run):
            if can_skip:
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from _intact(_decode(stream, packet), wanted)
        yield from _intact(_decode(stream, None), wanted)


def decode_all(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames that can be decoded, in order of display; damaged ones are left out.

    Only one thread may decode: with several, an error in one frame takes others with it.
    """
    for packet in _packets(container, stream):
        yield from (frame for frame in _decode(stream, packet) if not frame.is_corrupt)
    yield from (frame for frame in _decode(stream, None) if not frame.is_corrupt)


def _stretch(
    container: InputContainer, stream: VideoStream, packets: Sequence[PacketInfo], run: range
) -> Iterator[Packet]:
    """The packets of a run, from wherever before it the container stands; none if it stands behind."""
    found = 0
    for packet in _packets(container, stream):
        if found or _info(packet) == packets[run.start]:
            yield packet
            found += 1
        if found == len(run):
            return


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The whole packets from here on, up to the end or to where the file is damaged."""
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_corrupt:
                yield packet
    except av.FFmpegError:
        return


def _decode(stream: VideoStream, packet: Packet | None) -> list[VideoFrame]:
    """The frames that the decoder gives for a packet, or holds back still (None)."""
    try:
        return stream.codec_context.decode(packet)
    except av.FFmpegError:
        return []


def _intact(frames: Sequence[VideoFrame], wanted: set[int]) -> Iterator[VideoFrame]:
    return (frame for frame in frames if frame.pts in wanted and not frame.is_corrupt)


def _info(packet: Packet) -> PacketInfo:
    return PacketInfo(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, not packet.is_discard)
