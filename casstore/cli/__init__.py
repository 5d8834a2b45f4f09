"""The command line: each verb builds objects, calls one use case of the library, and renders what came back.

    main.py        the group: finds verbs when they are asked for, starts, ends with an exit code
    failures.py    errors and signals -> text (or JSON) on stderr and an exit code
    debug.py       what --debug shows of the library's messages
    env.py         the only place that reads the environment and the home directory
    advice.py      after an error, the command to type next
    template.py    --format; outputs.py: the fields of the JSON documents, from their schemas
    session.py     what the verbs share: settings, opening the store, talking
    options.py     options and arguments that several verbs have
    render.py      text and JSON; moved.py: of transfers; progress.py, bars.py: how far work is
    connection.py  options to reach registries, and the one opener of a run; identity.py: whose credentials
    trust.py       options that say whose signatures are wanted; signatures.py: what is told of signatures
    keyfiles.py    keys in files, and what opens private ones
    capture.py snapshots.py verification.py upkeep.py transfers.py signing.py login.py completion.py     the verbs
    remotes.py     list, inspect and remove of what is elsewhere

stdout is data, stderr is talk. A module of the library that is slow to import (numpy, oras, jsonschema) is imported by
the verb that needs it, inside its function, so that `casstore --version` and `--help` answer at once.
"""
