"""The words of a command line: what is accepted as it is written, and the one line that refuses the rest."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tslrec.config import Config
from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.known_keys import is_setting, known_keys, schema_keys
from tslrec.pipeline.overrides import LONGEST, arranged, readable
from tslrec.system.errors import UserError

CSV = ["data=csv", "method=base"]


def refused(*words: str) -> str:
    with pytest.raises(UserError) as raised:
        compose_overrides(words)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) <= LONGEST
    return message


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("sft.lr=0.1", "sft.learning_rate"),
        ("+sft.lr=0.1", "sft.learning_rate"),
        ("++e4srec.warmup=3", "e4srec.warmup_steps"),
        ("~training.patiense", "training.patience"),
        ("+preferences.clusters=3", "preferences.num_clusters"),
        ("+llm.lora.r=4", "llm.lora.rank"),
        ("+data.min_item=3", "data.min_item_interactions"),
        ("+trainer.nodes=2", "trainer.num_nodes"),
        ("+sed=3", "seed"),
        ("++artifact=x", "artifacts"),
        ("+training.learning_rate.peak=1", "training.learning_rate"),
        ("modle=fmlp", "model"),
        ("model.num_layer=3", "model.num_layers"),
    ],
)
def test_an_unknown_key_is_refused_wherever_it_stands_and_the_nearest_is_named(word: str, meant: str) -> None:
    message = refused(word)
    assert message.startswith(word)
    assert f"did you mean {meant}?" in message
    if word.split(".")[0] not in ("model",):
        assert "+" not in message.removeprefix(word)


@pytest.mark.parametrize("word", ["+unheard_of=1", "++x.y.z=1", "+training.zzz=1", "+method.zzz=q"])
def test_an_unknown_key_that_resembles_none_is_refused_too(word: str) -> None:
    assert "there is no such setting" in refused(word)


def test_the_parameters_of_a_target_may_be_added() -> None:
    config = compose_overrides(["+model.own_output2=true", "+logger.project=x", "+trainer.devices2=1"][:2])
    assert (config.model["own_output2"], config.logger["project"]) == (True, "x")


def test_a_setting_cannot_be_removed() -> None:
    assert refused("~training.patience") == (
        "~training.patience: a setting cannot be removed; give it a value, training.patience=…"
    )


@pytest.mark.parametrize(
    "value",
    [
        "~/clicks.csv",
        "/data/clicks (1)=new.csv",
        "/data/o'brien/x.csv",
        "/data/a b.csv",
        "/data/[old] x.csv",
        "/data/{a}.csv",
        "/data/a;b.csv",
        "/data/$HOME/x.csv",
        "/data/Käufe – März.csv",
        'C:\\data\\"x".csv',
        "/data/a=b.csv",
        "/data/x#y!z.csv",
    ],
)
def test_a_path_needs_no_second_quotes(value: str) -> None:
    assert compose_overrides([*CSV, f"data.path={value}"]).data.path == value


def test_a_separator_needs_no_second_quotes() -> None:
    assert compose_overrides([*CSV, "data.reader.separator=;"]).data.reader["separator"] == ";"


@pytest.mark.parametrize(
    "word", ["data.path=(a,b).csv", "metrics=[HR@10", "data.path='abc", "llm.shape={a", "seed=range(1", 'cache="x']
)
def test_what_could_mean_two_things_is_refused_with_the_way_to_write_it(word: str) -> None:
    message = refused(*CSV, word)
    assert message.startswith(f"{word}: the value cannot be read")
    (written,) = shlex.split(message.rpartition("shell's quotes: ")[2])
    assert readable([written]) == [written]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("members=[model=sasrec,model=gru4rec]", 'members=["model=sasrec","model=gru4rec"]'),
        ("members=[model=fmlp seed=1, model=lru]", 'members=["model=fmlp seed=1","model=lru"]'),
        ("members=['model=sasrec',model=gru4rec]", 'members=["model=sasrec","model=gru4rec"]'),
        ("+members=[method=ci]", '+members=["method=ci"]'),
        ("compare=[a=b]", 'compare=["a=b"]'),
    ],
)
def test_a_list_that_lost_its_inner_quotes_is_refused_with_the_way_to_write_it(word: str, written: str) -> None:
    message = refused(word)
    assert message.startswith(f"{word}: the value cannot be read; it is a list of texts")
    assert shlex.split(message.rpartition("shell's quotes: ")[2]) == [written]
    assert readable([written]) == [written]


def test_a_long_list_that_lost_its_inner_quotes_is_refused_with_its_form() -> None:
    members = ",".join(f"model=sasrec seed={seed}" for seed in range(9))
    assert refused(f"members=[{members}]").endswith("""shell's quotes: 'members=["…","…"]'""")


@pytest.mark.parametrize("word", ["members=[model=sasrec", "members=[a=[1,2],b=3]", "members=[a=b,]", "metrics=[HR@10"])
def test_a_list_whose_texts_cannot_be_told_apart_is_refused_without_guessing(word: str) -> None:
    assert "it is a list of texts" not in refused(word)


def test_several_values_need_a_sweep() -> None:
    message = refused("seed=1,2")
    assert message.startswith("seed=1,2: several values need -m")
    assert readable(["seed=1,2"], sweeping=True) == ["seed=1,2"]


@pytest.mark.parametrize(
    "key", ["artifacts", "cache", "data.path", "data.titles", "llm.path", "trainer.name", "method.name"]
)
@pytest.mark.parametrize("value", ["", "''", "'  '"])
def test_an_empty_text_is_refused(key: str, value: str) -> None:
    assert refused(f"{key}={value}").startswith(f"{key}=: the value is empty")


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("e4srec.warmup_steps=0.05", "must be a whole number"),
        ("seed=[1]", "must be a whole number"),
        ("sft.learning_rate=fast", "must be a number"),
        ("llm.shared_prefix=perhaps", "must be true or false"),
        ("compare=3", "must be a list, such as [a,b]"),
        ("metrics={a:1}", "must be a list, such as [a,b]"),
        ("artifacts=[3]", "must be a text"),
        ("seed=null", "must have a value, not null"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_plain_words(word: str, what: str) -> None:
    assert refused(word).partition(";")[0] == f"{word}: {what}"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("model=fmpl", "fmlp"),
        ("method=tslrek", "tslrec"),
        ("experiment=tslrec_gru_yelp", "tslrec_gru4rec_yelp"),
        ("llm=smollm_360m", "smollm2_360m"),
        ("data=beuty", "beauty"),
        ("launcher=slrum", "slurm"),
        ("preset=papr", "paper"),
    ],
)
def test_a_choice_that_does_not_exist_names_the_nearest_and_the_others(word: str, meant: str) -> None:
    message = refused(word)
    assert message.startswith(f"{word}: no such choice; did you mean {meant}? {word.split('=')[0]} has ")


@pytest.mark.parametrize("word", ["model=3", "model=null", "model=true", "data=1.5"])
def test_a_choice_is_a_name(word: str) -> None:
    assert refused(word).startswith(f"{word}: no such choice")


def test_options_may_stand_anywhere() -> None:
    assert arranged(["seed=0,1", "-m", "model=fmlp"]) == ["-m", "seed=0,1", "model=fmlp"]
    assert arranged(["seed=1", "--config-dir", "a b", "--cfg", "job"]) == [
        "--config-dir", "a b", "--cfg", "job", "seed=1",
    ]  # fmt: skip
    assert arranged(["seed=1", "--config-dir=x", "--info", "seed=2"]) == [
        "--config-dir=x",
        "--info",
        "seed=1",
        "seed=2",
    ]
    assert arranged(["data.path=~/x", "--multi", "seed=0,1"]) == ["--multirun", "data.path='~/x'", "seed=0,1"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--mutlirun"], "did you mean --multirun?"),
        (["--config-dir"], "needs a value"),
        (["--cfg", "jobs"], "invalid choice"),
        (["--c", "job"], "no such option"),
    ],
)
def test_an_option_that_does_not_exist_is_one_line(argv: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        arranged(argv)


def test_every_key_of_the_schema_is_a_setting() -> None:
    assert all(is_setting(key) for key in (*schema_keys(), *known_keys()))
    assert is_setting("model.anything.below")
    assert not is_setting("seed.below")


KEYS = st.one_of(
    st.sampled_from(known_keys()),
    st.sampled_from(known_keys()).flatmap(
        lambda key: st.integers(0, len(key) - 1).map(lambda i: key[:i] + key[i + 1 :])
    ),
    st.sampled_from(
        ["model", "method", "data", "experiment", "pair", "fusion", "launcher", "model@x", "hydra/launcher"]
    ),
    st.text("abc._/@:[]{}= ~+é$", max_size=12),
)
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["null", "true", "", "[]", "{}", "[1,2]", "{a:1}", "sasrec", "csv", "1,2", "range(1,3)", "${seed}"]
    ),
    st.sampled_from(["${", "${nope}", "${oc.env:NOPE}", "???", "glob(*)", "sort(1,2)", "int(x)", "tag(a,1)", "'", '"']),
    st.text(max_size=40),
    st.text("ab'\"\\[]{}(),:=;$~ \t\n", max_size=12),
    st.text("x", min_size=300, max_size=400),
)
WORDS = st.builds(
    lambda sign, key, equals, value: f"{sign}{key}{equals}{value}",
    st.sampled_from(["", "", "", "+", "++", "~"]),
    KEYS,
    st.sampled_from(["=", "=", "=", "=", ""]),
    VALUES,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(WORDS, min_size=1, max_size=2))
@pytest.mark.slow
def test_whatever_is_written_composes_or_ends_in_one_line(words: list[str]) -> None:
    """No other exception, and no message that a person cannot read at one glance."""
    try:
        config = compose_overrides(words)
    except UserError as error:
        message = str(error)
        assert len(message) <= LONGEST, message
        assert len(message.splitlines()) == 1, message
        assert message.isprintable(), message
    else:
        assert isinstance(config, Config)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.one_of(WORDS, st.text("-mcfgr =", max_size=6)), max_size=4))
def test_whatever_is_written_is_arranged_or_refused(argv: list[str]) -> None:
    try:
        found = arranged([word for word in argv if word not in ("-h", "--version")])
    except UserError as error:
        message = str(error)
        assert len(message) <= LONGEST
        assert message.isprintable()
    else:
        assert len(found) >= len(argv) - argv.count("--") - 1


@pytest.mark.parametrize("word", ["llm.random.seed=3", "llm.random={seed:3}"])
def test_a_key_below_what_is_null_is_one_line(word: str) -> None:
    assert "cannot be composed" in refused("llm=smollm2_135m", word)
