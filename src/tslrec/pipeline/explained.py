"""What a person reads of a configuration that does not compose: one line, with the word that is wrong and a remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tslrec.pipeline.known_keys import groups, nearest, nearest_key, unknown_key
from tslrec.pipeline.overrides import refusal, shown, word_of
from tslrec.system.errors import UserError

ALL_KEYS = "`python train.py --cfg job` prints every key, `--help` every choice"

NO_KEY = re.compile(r"Could not (?:override|delete from config\.|delete) '([^']*)'")
NOT_MERGED = re.compile(r"Error merging override (.*)")
KINDS = (
    (re.compile(r"^Value '.*' (?:of type '.*' )?could not be converted to Integer"), "must be a whole number"),
    (re.compile(r"^Value '.*' (?:of type '.*' )?could not be converted to Float"), "must be a number"),
    (re.compile(r"^Value '.*' is not a valid bool"), "must be true or false"),
    (re.compile(r"^Cannot convert '.*' to string"), "must be a text"),
    (re.compile(r"is not a ListConfig, list or tuple"), "must be a list, such as [a,b]"),
    (re.compile(r"^Cannot merge .* with ListConfig"), "must be a list, such as [a,b]"),
    (re.compile(r"^field '.*' is not Optional"), "must have a value, not null"),
)
"""OmegaConf's messages on a value of the wrong kind, and what a person reads in their place."""

APPENDED = re.compile(r"Could not append to config\. An item is already at '([^']*)'")


def explained(error: Exception, words: Sequence[str]) -> UserError:
    """The error of a configuration that does not compose, for the person who wrote it.

    Args:
        error: Hydra's or OmegaConf's.
        words: the overrides.
    """
    return refusal(message_of(error, words))


def message_of(error: Exception, words: Sequence[str]) -> str:
    """See `explained`; perhaps too long."""
    from hydra.errors import MissingConfigException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    text = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return no_choice(str(error.missing_cfg_file), error.options or ())
    if (found := APPENDED.search(text)) is not None:
        return f"+{found[1]}=…: {found[1]} exists already; write {found[1]}=… without the +"
    if (found := NO_KEY.search(text)) is not None and not found[1].startswith("hydra"):
        return no_key(found[1], words)
    if isinstance(error, MissingMandatoryValue) and (key := getattr(error, "full_key", None)):
        return f"{key}: has no value; set {key}=…"
    cause = error.__cause__
    reason = text if not isinstance(cause, OmegaConfBaseException) else str(cause).splitlines()[0]
    reason = re.sub(r"; (?:full_key|object_type|reference_type)[:=].*", "", reason).split("; See https:")[0]
    key = key_of(error) or key_of(cause)
    reason = next((told for pattern, told in KINDS if pattern.search(reason)), reason)
    if (merged := NOT_MERGED.search(text)) is not None:
        return f"{shown(merged[1].split('; ')[0])}: {shown(reason, 140)}"
    word = word_of(key, words)
    return f"{word}: {shown(reason, 160)}; {ALL_KEYS}" if word else f"{shown(reason, 200)}; {ALL_KEYS}"


def no_choice(missing: str, options: Sequence[str]) -> str:
    """A message on a file of `configs` that does not exist, such as `model/sasrek`."""
    group, _, name = missing.rpartition("/")
    if not group:
        return f"--config-name {shown(name)}: no such file in the folders of configurations"
    meant = nearest(name, options) if options else None
    what = f"{shown(f'{group}={name}')}: no such choice"
    if not options:
        near = nearest(group, groups())
        return f"{what}, and no group {shown(group)}" + (f"; did you mean {near}?" if near else f"; {ALL_KEYS}")
    asked = ";" if meant is None else f"; did you mean {meant}?"
    return f"{what}{asked} {group} has {', '.join(options)}; `--help` lists all"


def no_key(key: str, words: Sequence[str]) -> str:
    """A message on a key that does not exist; below a `_target_` a `+` adds a parameter."""
    word = word_of(key, words) or key
    section = key.rpartition(".")[0]
    if section.split(".")[0] in ("model", "fusion", "logger") or section.startswith(("data.reader", "trainer.")):
        meant = nearest_key(key)
        asked = "" if meant is None else f"did you mean {meant}? "
        added = f"+{key}=… adds a parameter of {section}._target_"
        return f"{word}: no such key in the chosen file; {asked}{added}; `--cfg job` prints every key"
    return f"{word}: {unknown_key(key)}"


def key_of(error: BaseException | None) -> str | None:
    """The key that an error of OmegaConf is about."""
    key = getattr(error, "full_key", None)
    return str(key) if key else None
