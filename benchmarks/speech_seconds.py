"""How well `mova_core.speech` times recorded sentences: `python -m benchmarks.speech_seconds FOLDER...`

A folder holds the text and the wav files of one language of Debian's asterisk-core-sounds, unpacked:
`apt-get download asterisk-core-sounds-fr asterisk-core-sounds-fr-wav`, then `dpkg -x` of both into one folder.
Sentences of four words and more are taken, from the first sound to the last.
"""

import argparse
import gzip
import re
import wave
from collections.abc import Iterator
from pathlib import Path

import torch

from mova_core.speech import language, line_seconds

CLIP = 8.0  # seconds
SOUNDING = 10 ** (-35 / 20)  # of the loudest 10 ms


def sentences(folder: Path) -> Iterator[tuple[str, float]]:
    """Text and seconds of each recording of a folder."""
    recordings = {path.stem: path for path in folder.rglob("*.wav")}
    for listed in folder.rglob("core-sounds-*.txt.gz"):
        for row in gzip.decompress(listed.read_bytes()).decode().splitlines():
            name, _, text = row.partition(":")
            spoken = len(text.split()) >= 4 and not re.search(r"[\[\](){}<>]", text) and not row.startswith(";")
            if spoken and name.strip() in recordings:
                yield text.strip(), spoken_seconds(recordings[name.strip()])


def spoken_seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        rate, data = file.getframerate(), bytearray(file.readframes(file.getnframes()))
    sound, step = torch.frombuffer(data, dtype=torch.int16).float(), rate // 100
    levels = sound[: len(sound) // step * step].view(-1, step).square().mean(dim=1).sqrt()
    sounding = (levels > SOUNDING * levels.max()).nonzero().flatten()
    return (sounding[-1] - sounding[0] + 1).item() / 100


def row(name: str, told: list[tuple[str, float]]) -> str:
    guesses = [(line_seconds(text), took) for text, took in told]
    error = sum(abs(guess - took) for guess, took in guesses) / len(guesses)
    long, short = [g for g, took in guesses if took > CLIP], [g for g, took in guesses if took <= CLIP]
    caught, false = sum(g > CLIP for g in long), sum(g > CLIP for g in short)
    languages = [language(text) for text, _ in told]
    taken = f"{max(languages, key=languages.count)} {max(map(languages.count, languages)) / len(told):.0%}"
    return (
        f"| {name} | {taken} | {len(told)} | {error:.2f} s | {caught} of {len(long)} "
        f"({caught / max(1, len(long)):.0%}) | {false} of {len(short)} ({false / max(1, len(short)):.1%}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    print(f"| recordings | taken for | sentences | mean error | above {CLIP:g} s: seen | below: called too long |")
    print("|---|---|---|---|---|---|")
    for folder in parser.parse_args().folders:
        print(row(folder.name, list(sentences(folder))))


if __name__ == "__main__":
    main()
