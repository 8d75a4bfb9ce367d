"""Command lines as pages show them, held to the programs that they call: nothing is run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import omnifleet.cli
import omnifleet_worker.cli
import typer
from omnifleet.gateway.settings import GatewaySettings
from omnifleet_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"\$\(([A-Z_]+)\)|^([A-Z_]+) [?:]?=", MAKEFILE, re.MULTILINE))
PROGRAMS = {
    "omnifleet": typer.main.get_command(omnifleet.cli.app),
    "omnifleet-worker": typer.main.get_command(omnifleet_worker.cli.app),
}
SETTINGS = {f"OMNIFLEET_{name.upper()}" for name in GatewaySettings.model_fields | WorkerSettings.model_fields}
"""Variables of the environment that some process reads."""
OTHERS = {
    ".",
    "accelerate",
    "cd",
    "celery",
    "curl",
    "docker",
    "export",
    "ffplay",
    "hf",
    "kubectl",
    "mkdir",
    "node",
    "npm",
    "pip",
    "pre-commit",
    "set",
    "tensorboard",
}
"""Programs that are not this project's, and what shells do themselves."""
ASSIGNMENT = re.compile(r"([A-Z_]+)=.*", re.DOTALL)


def commands_of(code: str) -> Iterator[list[str]]:
    """The words of each command in a block for a shell, variables that are set before it included."""
    joined = code.replace("\\\n", " ")
    for line in joined.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= set(";&|"):
                command.append(word)
            elif command:
                yield command
                command = []


def check(words: list[str]) -> None:
    """Hold one command to its program. Raises AssertionError, or the program's own error for what it does not take."""
    while words and (setting := ASSIGNMENT.fullmatch(words[0])):
        check_variable(setting[1])
        words = words[1:]
    if not words:
        return
    program, *arguments = words
    if program in PROGRAMS:
        command, rest = resolve(program, arguments)
        _parse(command, rest)
    elif program == "make":
        check_make(arguments)
    elif program == "python":
        script = f"{arguments[1].replace('.', '/')}.py" if arguments[0] == "-m" else arguments[0]
        assert (ROOT / script).exists(), f"{script} is not there"
    elif program.startswith(("k8s/", ".ci/")):
        assert (ROOT / program).exists(), f"{program} is not there"
    else:
        assert program in OTHERS, f"nobody knows {program}"
        _check_files(program, arguments)


def check_make(arguments: list[str]) -> None:
    """Hold the arguments of make to the Makefile."""
    known = {name for pair in VARIABLES for name in pair}
    for argument in arguments:
        setting = ASSIGNMENT.fullmatch(argument)
        assert setting[1] in known if setting else argument in TARGETS, f"the Makefile has no {argument}"


def check_variable(name: str) -> None:
    """Hold a variable of the environment to the settings, where it claims to be one."""
    if name.startswith("OMNIFLEET_"):
        assert name in SETTINGS, f"there is no setting {name}"


def resolve(program: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """The (sub)command that these arguments call, and what is left for it. Raises AssertionError."""
    command: Any = PROGRAMS[program]
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands and hasattr(command, "default_command"):
            arguments = [command.default_command, *arguments]
        assert arguments[0] in command.commands, f"{command.name} has no command {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def check_options(command: Any, arguments: list[str]) -> None:
    """Hold the options among the arguments of a command that may be shown in part."""
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    for argument in arguments:
        assert not argument.startswith("-") or argument in {*known, "--help"}, f"{command.name} has no {argument}"


def _parse(command: Any, arguments: list[str]) -> None:
    try:
        with command.make_context(command.name, list(arguments)):
            pass
    except typer.Exit:  # --help and --version end there
        assert {"--help", "--version"} & set(arguments)


def _check_files(program: str, arguments: list[str]) -> None:
    if program == "docker":
        assert (ROOT / arguments[arguments.index("-f") + 1]).exists()
    elif program == "cd":
        assert (ROOT / arguments[0]).is_dir()
    elif program == "node":
        assert (ROOT / "examples/node" / arguments[0]).exists()
    elif program == "kubectl" and "-k" in arguments:
        assert (ROOT / arguments[arguments.index("-k") + 1]).is_dir()
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = {extra for argument in arguments for extra in re.findall(r"\[(\w+)\]", argument)}
        assert named <= set(extras)
