"""The command line: each verb builds objects, calls one use case of the library, and renders what came back.

    main.py        the group: finds verbs when they are asked for, starts, ends with an exit code
    failures.py    errors and signals -> text (or JSON) on stderr and an exit code
    env.py         the only place that reads the environment and the home directory
    session.py     what the verbs share: settings, opening the store, talking
    options.py     options and arguments that several verbs have
    render.py      text and JSON; progress.py: the bar
    capture.py snapshots.py verification.py upkeep.py transfers.py login.py completion.py      the verbs

stdout is data, stderr is talk. A module of the library that is slow to import (numpy, oras, jsonschema) is imported by
the verb that needs it, inside its function, so that `casstore --version` and `--help` answer at once.
"""
