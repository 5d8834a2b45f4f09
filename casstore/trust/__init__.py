"""Whose signatures are asked for, and whether they are there.

    scopes.py        where content comes from, and which rule is for it
    baseimage.py     the base images that an artifact may say it comes from
    requirement.py   what is asked of content from one place
    policy.py        casstore.policy.toml; policyfile.py reads it, and its keys
    trust.py         what the caller and the policy ask, together
    decision.py      evidence and a requirement -> a verdict; pure
    admission.py     gathers the evidence, decides, and refuses what must not come in
    gate.py          the same for pulls, copies and imports: they ask it before they fetch more
    report.py        the same for who only looks, and refuses nothing

Everything here fails closed: what is not understood is refused, and no signature that was not checked counts.
"""
