"""The rules of the demo game, and how its bot moves."""

import random

from hypothesis import given
from hypothesis import strategies as st

from examples.udp_game.bot import step_towards
from examples.udp_game.world import Rules, World

SMALL = Rules(width=6, height=4, capacity=3, coins=4, goal=3, longest=20.0, silence=5.0)


def world(rules: Rules = SMALL, seed: int = 7) -> World:
    """A match whose chances are the same each time."""
    return World(rules, random.Random(seed))


def test_a_match_begins_with_its_first_player_and_not_before() -> None:
    """Nobody has to come: an empty server never ends its match by the clock."""
    match = world()
    for tick in range(100):
        assert match.tick(now=tick * 10.0) == []
    assert match.result is None
    match.join("ada", 1000.0)
    assert match.end("stopped", 1003.0).seconds == 3.0


def test_a_player_walks_one_step_a_tick_and_never_off_the_field() -> None:
    """However far it wants to go at once."""
    match = world()
    ada = match.join("ada", 0.0)
    match.move(ada, 100, -100, 0.0)
    start = (ada.x, ada.y)
    match.tick(0.1)
    assert (ada.x, ada.y) == (min(5, start[0] + 1), max(0, start[1] - 1))
    for _ in range(20):
        match.tick(0.1)
    assert (ada.x, ada.y) == (5, 0)


def test_coins_are_collected_and_others_appear() -> None:
    """There are always as many on the field as the rules say."""
    match = world()
    ada = match.join("ada", 0.0)
    (ada.x, ada.y), before = next(iter(match.coins)), len(match.coins)
    match.tick(0.1)
    assert ada.coins == 1
    assert len(match.coins) == before == SMALL.coins


def test_who_has_enough_coins_wins() -> None:
    """The match is over at once, and what happens later changes nothing."""
    match = world()
    ada, bob = match.join("ada", 10.0), match.join("bob", 10.0)
    for _ in range(SMALL.goal):
        ada.x, ada.y = next(iter(match.coins))
        match.tick(12.5)
    assert match.result is not None
    assert (match.result.reason, match.result.winner, match.result.seconds) == ("goal", "ada", 2.5)
    assert match.result.scores == {"ada": 3, "bob": bob.coins}
    assert match.why_not() == "the match is over"
    assert match.end("stopped", 99.0) is match.result


def test_a_silent_player_is_gone_after_a_while() -> None:
    """And where it was the last one, so is the match."""
    match = world()
    ada, bob = match.join("ada", 0.0), match.join("bob", 0.0)
    match.move(bob, 0, 0, 4.0)
    assert match.tick(6.0) == [ada]
    assert match.why_not() is None
    assert match.tick(9.5) == [bob]
    assert match.result is not None
    assert match.result.reason == "left"


def test_time_is_up_for_who_never_gets_enough() -> None:
    """Without a single leader nobody wins."""
    match = world()
    ada, bob = match.join("ada", 0.0), match.join("bob", 1.0)
    match.coins = {(0, 0)}
    match.move(ada, 0, 0, 19.0)
    match.move(bob, 0, 0, 19.0)
    (ada.x, ada.y), (bob.x, bob.y) = (5, 3), (4, 3)
    match.coins = {(0, index) for index in range(4)}
    match.tick(20.0)
    assert match.result is not None
    assert (match.result.reason, match.result.winner) == ("time", None)


def test_a_full_server_takes_nobody() -> None:
    """Until somebody leaves."""
    match = world()
    players = [match.join(f"player {number}", 0.0) for number in range(3)]
    assert match.why_not() == "the server is full"
    match.leave(players[0])
    assert match.why_not() is None


def test_two_players_of_one_name_can_be_told_apart() -> None:
    """A name is cut, cleaned and numbered."""
    match = world()
    names = [match.join(name, 0.0).name for name in ("ada", "ada", "\0\n ")]
    assert names == ["ada", "ada 2", "player"]
    assert len(match.join("x" * 1000, 0.0).name) == 16


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3), st.integers(-3, 3)), max_size=200), st.integers())
def test_no_moves_break_the_field(moves: list[tuple[int, int, int]], seed: int) -> None:
    """Players and coins stay on it, scores never exceed the goal by more than the last step, and ticks only grow."""
    match = world(seed=seed)
    players = [match.join(f"player {number}", 0.0) for number in range(3)]
    for who, dx, dy in moves:
        match.move(players[who], dx, dy, 0.0)
        match.tick(0.0)
        assert len(match.coins) == SMALL.coins
        for x, y in [*match.coins, *((player.x, player.y) for player in players)]:
            assert 0 <= x < SMALL.width
            assert 0 <= y < SMALL.height
        assert max(player.coins for player in players) <= SMALL.goal


@given(st.tuples(st.integers(0, 39), st.integers(0, 9)), st.tuples(st.integers(0, 39), st.integers(0, 9)))
def test_a_bot_without_whims_reaches_a_coin_by_the_shortest_way(here: tuple[int, int], coin: tuple[int, int]) -> None:
    """As many steps as the greater of both distances."""

    class Steady(random.Random):
        def random(self) -> float:
            return 1.0

    steps = 0
    x, y = here
    while (x, y) != coin:
        dx, dy = step_towards((x, y), [coin], Steady())
        x, y, steps = x + dx, y + dy, steps + 1
        assert steps <= 40
    assert steps == max(abs(here[0] - coin[0]), abs(here[1] - coin[1]))
