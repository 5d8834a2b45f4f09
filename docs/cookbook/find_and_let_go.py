"""Find snapshots by their labels, and let the old ones go by rule: the last ten stay, one for each of seven days, and
whatever is labelled `keep`.

python find_and_let_go.py STORE agent=coder
"""

import sys
from datetime import UTC, datetime

from casstore import Store
from casstore.retention import Policy

RULES = Policy(last=10, daily=7, labels=(("keep", None),))


def main(store: str, label: str) -> None:
    """Say what has the label KEY=VALUE, remove what no rule keeps, and free its space."""
    key, _, value = label.partition("=")
    with Store.open(store) as opened:
        for handle in opened.list({key: value}):
            print(f"{handle.name} {handle.created_at} {dict(handle.labels)}")
        report = opened.prune(RULES, now=datetime.now(UTC), labels={key: value})
        for decision in report.decisions:
            print("keeps" if decision.keep else "removes", *decision.entry.names, "-", *decision.reasons)
        freed = opened.gc(keep_trash=24 * 3600).freed  # what goes today can be taken back until tomorrow
        print(f"{freed} bytes freed")


if __name__ == "__main__":
    main(*sys.argv[1:])
