"""Any story of requests, notes, credits and deaths keeps every invariant of the ledger."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from freehold.db import open_database
from freehold.errors import FreeholdError
from freehold.nouns.ids import uuid7
from freehold.nouns.usage import Outcome, TokenCounts
from freehold.use import ledger
from freehold.use.audit import check
from freehold.use.charge import Price, most_tokens, reserve_amount
from freehold.use.ledger import Ending, Reservation, Terms

PRINCIPALS = st.sampled_from(["key:a", "key:b"])
COUNT = st.integers(0, 400)


class LedgerStory(RuleBasedStateMachine):
    """The model: balances and floors in a dictionary, open reservations by owner, the number of ended ones."""

    requests = Bundle("requests")

    @initialize(floor=st.sampled_from([None, 0, -50]))
    def begin(self, floor: int | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_700_000_000_000_000
        self.database = open_database(Path(self.folder.name) / "ledger.db", "ledger", lambda: self.now)
        self.balance = {"key:a": 0, "key:b": 0}
        self.floor: dict[str, int | None] = {"key:a": floor, "key:b": None}
        self.open: dict[str, Reservation] = {}
        self.noted: dict[str, TokenCounts] = {}
        self.ended = 0
        with self.database.write() as tx:
            ledger.set_floor(tx, "key:a", "EUR", floor, self.now)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    @rule(principal=PRINCIPALS, amount=st.integers(1, 500))
    def credit(self, principal: str, amount: int) -> None:
        with self.database.write() as tx:
            ledger.credit(tx, principal, "EUR", amount, self.now)
        self.balance[principal] += amount

    @rule(
        target=requests,
        principal=PRINCIPALS,
        owner=st.sampled_from(["p", "q"]),
        price=st.sampled_from([0, 1, 333_333, 1_000_000]),
        body=st.integers(0, 200),
        asked=st.one_of(st.none(), st.integers(1, 300)),
    )
    def reserve(self, principal: str, owner: str, price: int, body: int, asked: int | None) -> str | None:
        agreed = Price(price, price * 2, "EUR")
        amount = reserve_amount(agreed, *most_tokens(body, 256, asked, 1))
        fits = self.floor[principal] is None or amount == 0 or self.balance[principal] - amount >= (self.floor[principal] or 0)
        id_ = uuid7(self.now)
        try:
            with self.database.write() as tx:
                self.open[id_] = ledger.reserve(tx, id_, owner, Terms(principal, "m", "echo", agreed, amount), self.now)
        except FreeholdError as error:
            assert error.code == "use-budget-exhausted"
            assert not fits
            return None
        assert fits
        self.balance[principal] -= amount
        return id_

    @rule(id_=requests, prompt=COUNT, generated=COUNT, held=COUNT)
    def note(self, id_: str | None, prompt: int, generated: int, held: int) -> None:
        if id_ in self.open:
            self.noted[id_] = TokenCounts(prompt, 0, generated, max(0, generated - held))
            with self.database.write() as tx:
                ledger.note(tx, self.open[id_], self.noted[id_], 5, self.now)

    @rule(id_=consumes(requests), outcome=st.sampled_from(list(Outcome)), prompt=COUNT, generated=COUNT, held=COUNT)
    def close(self, id_: str | None, outcome: Outcome, prompt: int, generated: int, held: int) -> None:
        if id_ in self.open:
            counts = TokenCounts(prompt, 0, generated, max(0, generated - held))
            reservation = self.open.pop(id_)
            with self.database.write() as tx:
                record = ledger.close(tx, reservation, Ending(outcome, "x", counts), self.now)
            self.settled(reservation, counts, outcome, record.cost)

    @rule(dead=st.sampled_from(["p", "q"]))
    def die(self, dead: str) -> None:
        with self.database.write() as tx:
            records = ledger.recover(tx, lambda owner: owner != dead, self.now)
        assert {r.reservation for r in records} == {i for i, r in self.open.items() if r.owner == dead}
        for record in records:
            reservation = self.open.pop(record.reservation)
            self.settled(reservation, self.noted.get(record.reservation, TokenCounts()), Outcome.INTERRUPTED, record.cost)

    def settled(self, reservation: Reservation, counts: TokenCounts, outcome: Outcome, cost: int) -> None:
        """An independent statement of the rule of charges."""
        price, principal = reservation.terms.price, reservation.terms.principal
        owed = 0
        if outcome is Outcome.SETTLED or (outcome is Outcome.INTERRUPTED and counts.delivered):
            owed = (price.prompt * counts.prompt + price.generated * counts.delivered) // 1_000_000
        back = self.balance[principal] + reservation.terms.amount
        floor = self.floor[principal]
        expected = owed if floor is None else min(owed, back - floor)
        assert cost == expected
        self.balance[principal] = back - cost
        self.ended += 1

    @invariant()
    def everything_adds_up(self) -> None:
        with self.database.read() as tx:
            audit = check(tx)
            standing = {name: ledger.get_account(tx, name, "EUR") for name in self.balance}
        assert audit.ok, audit.broken
        assert audit.records == self.ended
        assert sum(f.open_requests for f in audit.flows) == len(self.open)
        for name, account in standing.items():
            assert (account.balance if account else 0) == self.balance[name]
            assert account is None or account.floor is None or account.balance >= account.floor


LedgerStory.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerStory = LedgerStory.TestCase
