"""Class names are read whole, and no two of them alike."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import open_clip
import pytest
import torch

from vimlight.embedded import pair_tokenizer
from vimlight.errors import ConfigError, shown
from vimlight.transmiter.cache.heads import text_head
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.models.templates import class_features
from vimlight.transmiter.models.texts import check_names, cut_texts

LONG = "a very long name of a class that nobody will ever read to its end because it goes on and on"
WORDS = ("a", "red", "fox", "photo", "of", ".", "the")


def bert():
    """A tokeniser of open_clip around one of transformers that knows few words."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    model = tokenizers.models.WordLevel({word: at for at, word in enumerate((*special, *WORDS))}, unk_token="[UNK]")
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    made = open_clip.tokenizer.HFTokenizer.__new__(open_clip.tokenizer.HFTokenizer)
    made.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    made.tokenizer_mode, made.strip_sep_token, made.context_length = "", False, 16
    made.clean_fn = open_clip.tokenizer.get_clean_fn("whitespace")
    return made


def stripped():
    """The same without a token for the end."""
    made = bert()
    made.strip_sep_token = True
    return made


TOKENIZERS = {
    "clip": lambda: open_clip.SimpleTokenizer(context_length=16),
    "canonical": lambda: open_clip.SimpleTokenizer(context_length=16, clean="canonicalize"),
    "pair": pair_tokenizer,
    "bert": bert,
    "stripped": stripped,
}


def reader(kind):
    """Stands for a model of which only the tokeniser matters."""
    return SimpleNamespace(name="tiny", tokenizer=TOKENIZERS[kind]())


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_is_cut_when_it_has_more_tokens_than_there_is_room_for(kind):
    tokenizer = TOKENIZERS[kind]()
    texts = [" ".join(["a"] * count) for count in range(1, 22)]
    # Beside the words there are a token for the start and one for the end.
    assert cut_texts(tokenizer, texts).tolist() == [count + 2 > 16 for count in range(1, 22)]
    assert cut_texts(tokenizer, texts, 7).tolist() == [count + 2 > 7 for count in range(1, 22)]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_two_names_that_differ_behind_the_end_are_refused(kind):
    names = ["fox", f"{LONG} one", f"{LONG} two"]
    message = rf"the text encoder of 'tiny' cannot tell the class names '{names[1]}' and '{names[2]}' apart: their"
    with pytest.raises(ConfigError, match=message):
        check_names(reader(kind), (names, ["a photo of a {}."]))
    # One template that tells them apart is enough, but something is cut.
    with pytest.warns(UserWarning, match="not the end of some prompts of the classes 'fox'"):
        check_names(reader(kind), (["fox", "red"], ["a {}.", LONG + " " + LONG + " {}"]))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("clip", ["Fox", "fox"]),
        ("clip", ["red_fox", "red fox"]),
        ("clip", ["AT&T", "AT&amp;T"]),
        ("canonical", ["C", "C++"]),
        ("bert", ["owl", "heron"]),  # words that it does not know
    ],
)
def test_two_names_of_the_same_tokens_are_refused(kind, names):
    with pytest.raises(ConfigError) as caught:
        check_names(reader(kind), (names, ["a photo of a {}.", "the {}"]))
    assert f"cannot tell the class names {names[0]!r} and {names[1]!r} apart" in str(caught.value)


def test_a_name_of_which_nothing_is_read_is_refused():
    with pytest.raises(ConfigError, match=r"of 'tiny' reads nothing of the class name '\?\?\?': its prompts are"):
        check_names(reader("canonical"), (["fox", "???"], ["a photo of a {}."]))
    check_names(reader("clip"), (["fox", "???"], ["a photo of a {}."]))


def test_words_that_no_vocabulary_has_are_told_apart_by_the_embedded_models():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_names(reader("pair"), (["xqzt", "xqzv", "狐", "猫"], ["a {}"]))


def test_cut_names_are_listed_once():
    names = [f"{at} {LONG}" for at in range(7)]
    with pytest.warns(UserWarning, match="reads 16 tokens") as caught:
        check_names(reader("clip"), (["fox", *names], ["a {}"]), (["an owl " + LONG], ["a {}"]), batch_size=2)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert shown(names[0]) in text
    assert shown(names[5]) not in text
    assert "7 in all" in text
    assert "fox" not in text


def test_a_tokeniser_of_ones_own_is_checked_for_twins_alone():
    def tokens(texts):
        return torch.tensor([[len(text)] * 4 for text in texts])

    model = SimpleNamespace(name="mine", tokenizer=tokens)
    check_names(model, (["a", "bb"], ["{}"]))
    with pytest.raises(ConfigError, match="the class names 'a' and 'b' apart"):
        check_names(model, (["a", "b"], ["{}"]))


def test_auxiliary_names_that_are_read_as_others_are_warned_of():
    classes, auxiliary = ["fox", f"{LONG} one"], [f"{LONG} two", "owl", f"{LONG} three"]
    with pytest.warns(UserWarning, match="of 'tiny'") as caught:
        check_names(reader("clip"), (classes, ["a {}"]), (auxiliary, ["a {}"]))
    twins, cut = (str(each.message) for each in caught)
    assert twins.endswith(f"reads as another name: {shown(auxiliary[0])}, {shown(auxiliary[2])}")
    assert f"not the end of some prompts of the classes {shown(classes[1])};" in cut


@pytest.mark.parametrize("where", ["class_features", "text_head"])
def test_every_way_to_a_text_head_is_checked(where):
    model, names = load_model("vit_scenes_small"), [f"{LONG} one", f"{LONG} two"]
    text = {"templates": ["a {}"], "aux_templates": ["a {}"]}
    manifest = SimpleNamespace(class_names=names, aux_names=["fox"], text=text)
    with pytest.raises(ConfigError, match="cannot tell the class names"):
        text_head(model, manifest) if where == "text_head" else class_features(model, names, ["a {}"])
    manifest = SimpleNamespace(class_names=["fox"], aux_names=names, text=text)
    with pytest.warns(UserWarning, match="reads as another name"):
        assert text_head(model, manifest).weights.shape == (3, 128)
    assert class_features(model, names, ["a {}"], check=False).shape == (2, 128)
