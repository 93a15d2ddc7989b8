"""Which shots are kept and which are made: by the content of what they are made from, never by file times."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MovaError
from .shots import Planned
from .takes import ShotRecipe, Take, add_signature, could_go, digest, folder_bytes

KEPT, MADE, LOCKED, CHOSEN = "kept", "made", "locked", "chosen"
END_BEFORE = "the end of the shot before"
Recipes = Callable[[Planned, str], ShotRecipe]
"""The recipe of a shot, given the digest of the end that it begins with ("" for none)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What becomes of a shot. `take` is the one it has, None where it is to be made; `why` says why that is."""

    planned: Planned
    state: str
    take: Take | None = None
    why: str = ""

    def remember(self, others: Sequence["Decision"], signature: Recipes) -> None:
        """Write into the header of a take that is kept how the workflow above it is written now."""
        if self.state == KEPT and self.take is not None:
            needed = next((each.take for each in others if each.planned.shot.name == self.planned.needs), None)
            add_signature(self.take, signature(self.planned, needed.end if needed else ""))

    def told(self) -> str:
        """A line of the report."""
        words = {KEPT: "kept", LOCKED: "locked", CHOSEN: "the chosen take", MADE: "to be made"}[self.state]
        take = f", take {self.take.digest[:8]}" if self.take else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.planned.number} {self.planned.shot.name}: {words}{take}{why}"


@dataclass(frozen=True, kw_only=True)
class Known:
    """Takes of a film by what they were made from."""

    takes: Sequence[Take]
    by_content: Mapping[str, Take] = field(default_factory=dict)
    by_signature: Mapping[str, Take] = field(default_factory=dict)

    @classmethod
    def of(cls, takes: Sequence[Take]) -> "Known":
        return cls(
            takes=takes,
            by_content={take.digest: take for take in takes},
            by_signature={digest(signature): take for take in takes for signature in take.signatures},
        )

    def of_shot(self, name: str) -> list[Take]:
        return [take for take in self.takes if take.shot == name]


def decide(
    planned: Sequence[Planned], known: Known, signature: Recipes, content: Recipes | None = None
) -> list[Decision]:
    """What becomes of each shot. A take is kept where its signature or its content is the same.

    Raises:
        MovaError: a locked shot without a take, or a chosen take that is not there.
    """
    decisions: dict[str, Decision] = {}
    for each in planned:
        decisions[each.shot.name] = _decide(each, known, decisions, signature, content)
    return list(decisions.values())


def _decide(
    each: Planned, known: Known, before: Mapping[str, Decision], signature: Recipes, content: Recipes | None
) -> Decision:
    if each.shot.take:
        return Decision(planned=each, state=CHOSEN, take=_chosen(each, known))
    if each.shot.lock:
        return Decision(planned=each, state=LOCKED, take=_locked(each, known))
    needed = before.get(each.needs)
    if needed is not None and needed.take is None:
        return Decision(planned=each, state=MADE, why=f"depends on shot {needed.planned.number}")
    end = needed.take.end if needed and needed.take else ""
    wanted = signature(each, end)
    take = known.by_signature.get(digest(wanted))
    if take is None and content is not None:
        take = known.by_content.get(digest(content(each, end)))
    if take is not None:
        return Decision(planned=each, state=KEPT, take=take)
    return Decision(
        planned=each, state=MADE, why=_why(known.of_shot(each.shot.name), wanted, content and content(each, end))
    )


def _chosen(each: Planned, known: Known) -> Take:
    own = [take for take in known.of_shot(each.shot.name) if take.digest.startswith(each.shot.take)]
    found = own or [take for take in known.takes if take.digest.startswith(each.shot.take)]
    if len(found) != 1:
        there = ", ".join(f"{take.digest[:8]} of {take.shot}" for take in (found or known.takes)) or "none"
        raise MovaError(
            f"{each.shot.where}: take {each.shot.take} names {len(found) or 'none'} of the takes on disk; there "
            f"are: {there}"
        )
    return found[0]


def _locked(each: Planned, known: Known) -> Take:
    own = known.of_shot(each.shot.name)
    if not own:
        raise MovaError(
            f"{each.shot.where} is locked, and there is no take of it on disk; take away the lock to have it made"
        )
    return own[-1]


def _why(own: Sequence[Take], signature: ShotRecipe, content: ShotRecipe | None) -> str:
    """The fields in which it differs from the nearest take of its shot."""
    if not own:
        return "it has no take yet"
    if content is not None:
        differing = [_differing(take.content, content) for take in own]
    else:
        differing = [_differing(old, signature) for take in own for old in take.signatures]
    nearest = min(reversed(differing), key=len, default=[])
    return f"{', '.join(nearest)} changed" if nearest else "its take is not whole"


def _differing(old: ShotRecipe, new: ShotRecipe) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def report(decisions: Sequence[Decision], off: Sequence[str], film: Path, limit: float) -> str:
    """Each shot in a line, then what could go from the disk."""
    lines = [decision.told() for decision in decisions]
    lines += [f"- {name}: off" for name in off]
    spare = could_go(film, [d.take for d in decisions if d.take], limit)
    if spare:
        lines.append(
            f"{film} holds {folder_bytes(film) / 1e9:.1f} GB, more than {limit:g}. These takes are not used and "
            "could go: " + ", ".join(f"{take.id} ({take.bytes() / 1e6:.0f} MB)" for take in spare)
        )
    return "\n".join(lines)
