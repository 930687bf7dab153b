"""The ``thaw`` command: the window, and training in the terminal. Qt is imported only where a window opens."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import app
from app import cli_checkpoints, cli_comparison, cli_reports, cli_sharing, cli_steering, cli_what_if
from app.cli_errands import do_errand
from app.cli_options import CheckpointName, Json, Run, RunsDir, complain, console, print_line, runs_dir
from app.display import display_problem
from app.event_sentences import replay_sentences
from app.figures import counted, shown_path
from app.following import Ending, follow, go_on
from app.json_lines import JsonLines, to_json
from app.setting_syntax import with_settings
from app.terminal import TerminalView
from app.worker_talk import RunFailedError
from trainer.client import ClientEvent, WorkerClient
from trainer.config import MAX_EPOCHS, RunConfig, load_config
from trainer.data_path import load_run
from trainer.messages.commands import OpenRun, PrepareRun
from trainer.messages.replay import ResumeVerified, VerifyResume
from trainer.run_list import branch_config, find_run
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

DEMO_CONFIG_PATH = Path(app.__file__).parent.parent / "assets" / "demo.toml"

# Typer's own copy of click, or click itself in older versions of it: this finds the usage error of either.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

thaw = typer.Typer(
    name="thaw",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> int:
    """Run the ``thaw`` command. Returns its exit code: 0 done, 1 the run failed, 2 the user's input was wrong."""
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show a snowflake gets a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = thaw(arguments, prog_name="thaw", standalone_mode=False)
    except _UsageError as error:
        return complain(_usage_sentence(error), 2)
    except RunFailedError as error:
        return complain(str(error), 1)
    except ValueError as error:
        return complain(str(error), 2)
    except PermissionError as error:
        return complain(f"Cannot use {error.filename}: {error.strerror}. Choose a path that you may use.", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return code if isinstance(code, int) else 0


@thaw.callback(invoke_without_command=True)
def start_window(context: typer.Context, runs: RunsDir = None) -> int:
    """Fine-tune pretrained image classifiers, and freeze layers live. Without a command: the window."""
    context.obj = runs
    if context.invoked_subcommand is not None:
        return 0
    return _open_window(None, None, runs_dir(context, None))


@thaw.command("open")
def open_run(context: typer.Context, run: Run, runs: RunsDir = None) -> int:
    """Open the window on a run."""
    folder = runs_dir(context, runs)
    return _open_window(find_run(run, folder), None, folder)


@thaw.command()
def demo(
    context: typer.Context,
    terminal: Annotated[bool, typer.Option("--terminal", help="Stay in the terminal.")] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=10_000, metavar="N", help="Passes over the training data.")
    ] = None,
    runs: RunsDir = None,
    json: Json = False,
) -> int:
    """Fine-tune on handwritten digits, offline: first the head, then the last stage too."""
    config = load_config(DEMO_CONFIG_PATH)
    if epochs is not None:
        config = _with_epochs(config, epochs)
    folder = runs_dir(context, runs)
    if not terminal and not json:
        problem = display_problem()
        if not problem:
            return _open_window(None, config, folder)
        complain(f"{problem} The demo goes on here in the terminal.", 0)
    return _follow(PrepareRun(config=config, runs_dir=str(folder)), json)


@thaw.command()
def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run's configuration.")],
    runs: RunsDir = None,
    json: Json = False,
) -> int:
    """Train as a configuration says. Ctrl+C stops and saves; a second Ctrl+C ends it at once."""
    return _follow(PrepareRun(config=load_run(config), runs_dir=str(runs_dir(context, runs))), json)


@thaw.command()
def resume(
    context: typer.Context,
    run: Run,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="CHECKPOINT", help='An epoch, a unique piece of its name, "best", or "last" (default).'
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_EPOCHS, metavar="N", help="Epochs in all from now on: to train on after the last."),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also where its data, the libraries or the device have changed since.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only make the first steps again in a copy, and compare them with the run's."),
    ] = False,
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="How many steps to verify.")] = 20,
    runs: RunsDir = None,
    json: Json = False,
) -> int:
    """Go on with a run from a checkpoint, or train on for more epochs."""
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        name = folder.checkpoints.find(checkpoint).name if checkpoint else None
        if verify:
            return _verify(VerifyResume(run_dir=str(run_dir.absolute()), checkpoint=name, num_steps=steps), json)
        _check_is_unfinished(folder, name, epochs)
        has_worker = folder.worker() is not None
    if has_worker:
        return _told(_watch(lambda show: go_on(run_dir, name, epochs, show, _tell), json))
    command = OpenRun(run_dir=str(run_dir.absolute()), checkpoint=name, epochs=epochs, anyway=anyway)
    ending = _followed(command, json)
    if not ending.has_changed:
        return _told(ending)
    if json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return complain(f"{ending.sentence} That is `thaw resume {shown_path(run_dir)} --anyway`.", 2)
    complain(ending.sentence, 0)
    if not typer.confirm("Resume anyway?"):
        return ending.exit_code
    return _told(_followed(command.model_copy(update={"anyway": True}), json))


@thaw.command()
def branch(
    context: typer.Context,
    run: Run,
    checkpoint: CheckpointName,
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG.toml]",
            help="The new run's configuration; by default that of RUN, with what is frozen, what adapts and the "
            "layers' rates as at the checkpoint, and without a plan.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help='Another value of a field: "training.epochs=5". Repeatable.'),
    ] = None,
    with_optimizer: Annotated[
        bool, typer.Option("--with-optimizer", help="Take the optimizer's state, too; it must be the same optimizer.")
    ] = False,
    runs: RunsDir = None,
    json: Json = False,
) -> int:
    """Begin a new run from a checkpoint of another one."""
    folder = runs_dir(context, runs)
    run_dir = find_run(run, folder)
    with RunFolder(run_dir, read_only=True) as parent:
        begun = branch_config(parent.config(), run_dir, parent.checkpoints.find(checkpoint))
    assert begun.branch is not None
    origin = begun.branch.model_copy(update={"with_optimizer": with_optimizer})
    begun = (begun if config is None else load_run(config)).model_copy(update={"branch": origin})
    return _follow(PrepareRun(config=with_settings(begun, settings or []), runs_dir=str(folder)), json)


thaw.add_typer(cli_reports.commands)
thaw.add_typer(cli_checkpoints.commands)
thaw.add_typer(cli_sharing.commands)
thaw.add_typer(cli_what_if.commands)
thaw.add_typer(cli_comparison.commands)
thaw.add_typer(cli_steering.commands)


def _open_window(run: Path | None, config: RunConfig | None, folder: Path) -> int:
    problem = display_problem()
    if problem:
        return complain(problem, 2)
    # Nearly all that is made until the window is there stays: looking through it again and again takes a twentieth of
    # the time. It is turned on there.
    gc.disable()
    from app.window import run_window

    return run_window(run, config, folder, start=config is not None)


def _with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    # A phase of the plan that would come after the end is no phase of this run.
    plan = [phase for phase in config.plan if phase.epoch is None or phase.epoch < epochs]
    training = config.training.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"training": training, "plan": plan})


def _check_is_unfinished(folder: RunFolder, checkpoint: str | None, epochs: int | None) -> None:
    begins_at = folder.checkpoints.find(checkpoint) if checkpoint else folder.checkpoints.resume_point()
    if begins_at is None or begins_at.epoch < (epochs or folder.num_epochs()):
        return
    path, done = shown_path(folder.path), counted(begins_at.epoch, "epoch")
    if epochs is not None:
        raise RunFolderError(
            f"{folder.path.name} has {done} behind it there, so that it cannot end after {counted(epochs, 'epoch')}. "
            f"Choose {begins_at.epoch + 1:,} or more."
        )
    raise RunFolderError(
        f"{folder.path.name} has finished its {counted(folder.num_epochs(), 'epoch')}: there is nothing to resume. "
        f"Train on with `thaw resume {path} --epochs N`, or go on from an earlier checkpoint with `thaw resume {path} "
        f"--from CHECKPOINT` (see `thaw checkpoints {path}`)."
    )


def _verify(command: VerifyResume, as_json: bool) -> int:
    replay = do_errand(command, ResumeVerified).replay
    if as_json:
        print_line(to_json(replay.model_dump(mode="json")))
    else:
        for sentence in replay_sentences(replay):
            print_line(sentence)
    return 0 if replay.difference is None else 1


def _follow(command: PrepareRun, as_json: bool) -> int:
    return _told(_followed(command, as_json))


def _followed(command: PrepareRun | OpenRun, as_json: bool) -> Ending:
    client = WorkerClient.start()
    return _watch(lambda show: follow(client, command, show, _tell), as_json)


def _watch(follow_run: Callable[[Callable[[ClientEvent], None]], Ending], as_json: bool) -> Ending:
    if as_json:
        return follow_run(JsonLines(sys.stdout).show)
    with TerminalView(console()) as view:
        ending = follow_run(view.show)
    view.summarize(ending)
    return ending


def _told(ending: Ending) -> int:
    if ending.exit_code:
        complain(ending.sentence, ending.exit_code)
    return ending.exit_code


def _tell(sentence: str) -> None:
    complain(sentence, 0)


def _usage_sentence(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "thaw"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    # What the library that reads the options puts before its sentence.
    message = message.replace(": Value error, ", ": ", 1)
    if not message.endswith(("?", ".")):
        message += "."
    return f"{message} See `{command} --help`."
