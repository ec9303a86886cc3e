"""The output of the demo: a transcript, and in a terminal, an animated picture below it.

Without a terminal, with `NO_COLOR`, or in a small terminal, there is only the transcript, as plain lines.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

PHASES = ("starting", "ready", "draining", "stopping", "flushing", "releasing", "exited")
WHO = {"platform": "blue", "call": "cyan", "agent": "green", "game": "yellow", "metrics": "magenta"}
PLAYER_STYLES = ("bright_cyan", "bright_magenta", "bright_green", "bright_red", "bright_blue", "white")
WIDTH, HEIGHT = 40, 10
SMALLEST = (80, 24)


@dataclass
class Scene:
    """What the picture shows.

    Attributes:
        platform: the deployment's status.
        address: where players connect.
        phases: of the agent's lifecycle, those that were entered, the present one last.
        goal: coins that win.
        players: id, name, x, y and coins of each.
        coins: where coins lie.
    """

    platform: str = ""
    address: str = ""
    phases: list[str] = field(default_factory=list)
    goal: int = 0
    players: list[tuple[int, str, int, int, int]] = field(default_factory=list)
    coins: list[tuple[int, int]] = field(default_factory=list)


class Screen:
    """The transcript alone, as plain lines.

    Attributes:
        scene: what is known of the moment.
    """

    def __init__(self) -> None:
        """Begins to count the time."""
        self.scene = Scene()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def say(self, who: str, what: str) -> None:
        """Adds a line to the transcript."""
        print(f"{self.seconds:6.2f}  {who:<8}  {what}", flush=True)

    def end(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Prints what is left to be said, as pairs of a name and a text."""
        self.close()
        print(f"\n{title}", flush=True)
        for name, text in rows:
            print(f"  {name:<16}{text}", flush=True)

    def close(self) -> None:
        """Ends the picture; the transcript stays."""

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the picture."""
        self.close()


class LiveScreen(Screen):
    """The transcript in colours, and the picture below it."""

    def __init__(self, console: Console) -> None:
        """Draws the first picture."""
        super().__init__()
        self._console = console
        self._live = Live(
            console=console, get_renderable=self._picture, refresh_per_second=12, transient=True, redirect_stdout=False
        )
        self._live.start()

    def say(self, who: str, what: str) -> None:
        """Adds a line above the picture."""
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{self.seconds:6.2f}  ", "dim")
        line.append(f"{who:<8}", WHO.get(who, ""))
        line.append(f"  {what}", "dim" if who == "call" else "")
        self._console.print(line)

    def end(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Prints what is left to be said, below the transcript."""
        self.close()
        self._console.print(Text(f"\n{title}", "bold"))
        for name, text in rows:
            # Paths must stay in one piece, to be copied: no wrapping by rich.
            self._console.print(Text.assemble("  ", (f"{name:<16}", "dim"), text), soft_wrap=True)

    def close(self) -> None:
        """Takes the picture away."""
        self._live.stop()

    def _picture(self) -> RenderableType:
        scene = self.scene
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Panel(_field(scene), title=_title(scene), title_align="left", border_style="dim"), self._side())
        return Group(Text(), grid, _phases(scene.phases))

    def _side(self) -> RenderableType:
        scene = self.scene
        facts = Table.grid(padding=(0, 2))
        facts.add_row(Text("deployment", "dim"), Text(scene.platform or "-", WHO["platform"]))
        facts.add_row(Text("players at", "dim"), Text(scene.address or "-"))
        facts.add_row(Text("time", "dim"), Text(f"{self.seconds:.1f} s"))
        scores = Table.grid(padding=(0, 1))
        for number, name, _, _, coins in sorted(scene.players, key=lambda player: -player[4]):
            bar = "━" * round(12 * min(1.0, coins / max(1, scene.goal)))
            scores.add_row(Text(name, _style(number)), Text(f"{coins:>2}"), Text(bar, _style(number)))
        return Group(Text(), facts, Text(), scores)


def _title(scene: Scene) -> str:
    return f"{scene.goal} coins win" if scene.goal else "nobody plays yet"


def _style(number: int) -> str:
    return PLAYER_STYLES[(number - 1) % len(PLAYER_STYLES)]


def _field(scene: Scene) -> Text:
    cells = dict.fromkeys(scene.coins, ("•", "yellow"))
    cells |= {(x, y): (name[:1].upper(), f"bold {_style(number)}") for number, name, x, y, _ in scene.players}
    text = Text()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            text.append(*cells.get((x, y), (" ", "")))
        if y < HEIGHT - 1:
            text.append("\n")
    return text


def _phases(entered: list[str]) -> Text:
    text = Text(" ")
    for number, phase in enumerate(PHASES):
        if number:
            text.append(" ─ ", "dim")
        text.append(phase, "bold green" if entered[-1:] == [phase] else "green" if phase in entered else "dim")
    return text


def make_screen(*, plain: bool = False) -> Screen:
    """The screen that suits where stdout goes.

    Args:
        plain: plain lines whatever it is.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # arrows and quotes, where the locale has none
    size = shutil.get_terminal_size()
    large = size.columns >= SMALLEST[0] and size.lines >= SMALLEST[1]
    dumb = os.environ.get("TERM", "") in ("", "dumb") or bool(os.environ.get("NO_COLOR"))
    if plain or dumb or not large or not sys.stdout.isatty():
        return Screen()
    return LiveScreen(Console(highlight=False))
