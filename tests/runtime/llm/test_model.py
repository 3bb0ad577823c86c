import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadBundle, BadInput, Bundle, StllmError
from stllm_edge.runtime.llm.model import (
    KV_TYPES,
    LanguageModel,
    Vocabulary,
    decode_text,
    embedding_rows,
    sample,
)

TEXTS = [
    "Where is the cup?",
    "",
    " ",
    "\n",
    "\nWhere?<|im_end|>\n",
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "0.23s,0.67s,1.10s.Please answer",
    "  two  spaces\tand a tab\r\n\r\n",
    "It's they're I'LL don't",
    "na\u00efve caf\u00e9 \u4f60\u597d \U0001f600 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "12345 3.14159 -7",
    "x" * 300,
    "<|im_end|><|im_end|>nothing<|im_start|>",
    "not special: <|im_star|> <im_end>",
]


def options(**changed: object) -> dict[str, object]:
    return {"context": 256, "kv": "f32", "flash_attention": False, "threads": 1, **changed}


@pytest.fixture(scope="module")
def gguf(tiny_bundle: Path) -> Path:
    return tiny_bundle / "llm" / "F32.gguf"


@pytest.fixture
def model(gguf: Path) -> Iterator[LanguageModel]:
    with LanguageModel(gguf, **options()) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def vocabulary(gguf: Path) -> Iterator[Vocabulary]:
    loaded = Vocabulary(gguf)
    yield loaded
    loaded.close()


def close(ours: np.ndarray, theirs: np.ndarray, limit: float = 1e-5) -> bool:
    return bool(np.linalg.norm(ours - theirs) <= limit * np.linalg.norm(theirs))


# vocabulary


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_checkpoint_s_tokenizer(vocabulary, tiny_checkpoint, text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    assert vocabulary.tokenize(text) == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", [text for text in TEXTS if "<|im_" not in text])
def test_pieces_join_to_the_text(vocabulary, text: str) -> None:
    assert b"".join(vocabulary.piece(token) for token in vocabulary.tokenize(text)).decode() == text


def test_special_tokens_have_no_text(vocabulary) -> None:
    (token,) = vocabulary.tokenize("<|im_end|>")
    assert vocabulary.piece(token) == b""


def test_a_lone_surrogate_is_refused(vocabulary) -> None:
    """What Python makes of a command line that is not UTF-8."""
    with pytest.raises(StllmError):
        vocabulary.tokenize("caf\udce9?")


def test_size(vocabulary, model) -> None:
    assert len(vocabulary) == model.vocabulary == 1024


@pytest.mark.parametrize("content", [b"", b"no gguf", b"GGUF\x03\0\0\0"])
@pytest.mark.parametrize("load", [Vocabulary, lambda path: LanguageModel(path, **options())])
def test_files_that_libllama_refuses(tmp_path, content: bytes, load) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(BadBundle, match=r"broken\.gguf: libllama could not load it"):
        load(file)


def test_a_truncated_model_is_refused(gguf, tmp_path) -> None:
    file = tmp_path / "short.gguf"
    file.write_bytes(gguf.read_bytes()[:-1000])
    with pytest.raises(BadBundle, match=r"short\.gguf"):
        LanguageModel(file, **options())


# embeddings


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_K_M"])
def test_embedding_rows_are_those_of_the_file(tiny_bundle, quant: str) -> None:
    gguf = pytest.importorskip("gguf")
    llm = Bundle(tiny_bundle).llm(quant)
    file = tiny_bundle / llm.file
    (stored,) = (tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == "token_embd.weight")
    table = gguf.quants.dequantize(stored.data, stored.tensor_type)
    ids = [0, 1023, 5, 5, 700]
    rows = embedding_rows(file, llm.embedding, ids)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, table[ids])


def test_no_ids_give_no_rows(tiny_bundle) -> None:
    llm = Bundle(tiny_bundle).llm("Q4_K_M")
    assert embedding_rows(tiny_bundle / llm.file, llm.embedding, []).shape == (0, 256)


@pytest.mark.parametrize("ids", [[-1], [1024], [3, -300, 4], [2**40]])
def test_ids_outside_the_vocabulary_have_no_row(tiny_bundle, ids: list[int]) -> None:
    llm = Bundle(tiny_bundle).llm("F32")
    with pytest.raises(BadInput, match=r"token id outside 0\.\.1023"):
        embedding_rows(tiny_bundle / llm.file, llm.embedding, ids)


# decoding


def test_embeddings_of_tokens_act_as_the_tokens(tiny_bundle, gguf, model) -> None:
    ids = [1001, 5, 9, 700, 44]
    model.decode_tokens(ids)
    rows = embedding_rows(gguf, Bundle(tiny_bundle).llm("F32").embedding, ids)
    with LanguageModel(gguf, **options()) as other:
        other.decode_embeddings(rows)
        assert close(other.logits(), model.logits())
        assert other.position == model.position == 5


def test_tokens_and_embeddings_mix(tiny_bundle, gguf, model) -> None:
    ids = list(range(40, 60))
    model.decode_tokens(ids)
    rows = embedding_rows(gguf, Bundle(tiny_bundle).llm("F32").embedding, ids)
    with LanguageModel(gguf, **options()) as other:
        other.decode_tokens(ids[:3])
        other.decode_embeddings(rows[3:15])
        other.decode_tokens([])
        other.decode_tokens(ids[15:])
        assert close(other.logits(), model.logits())


def test_order_matters(gguf, model) -> None:
    model.decode_tokens([5, 6, 7])
    with LanguageModel(gguf, **options()) as other:
        other.decode_tokens([6, 5, 7])
        assert not close(other.logits(), model.logits(), 1e-2)


@pytest.mark.parametrize("micro_batch", [64, 512])
def test_prompts_longer_than_a_batch(gguf, micro_batch: int) -> None:
    ids = np.random.default_rng(0).integers(0, 1000, 700)
    with (
        LanguageModel(gguf, **options(context=1024, micro_batch=micro_batch)) as whole,
        LanguageModel(gguf, **options(context=1024)) as parts,
    ):
        whole.decode_tokens(ids)
        for start in range(0, 700, 50):
            parts.decode_tokens(ids[start : start + 50])
        assert close(whole.logits(), parts.logits())
        assert whole.position == 700


def test_the_language_model_computes_what_pytorch_does(tiny_checkpoint, model) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    tensors = {
        name: tensor.float()
        for file in tiny_checkpoint.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    config = transformers.Qwen2Config.from_pretrained(tiny_checkpoint)
    reference = transformers.Qwen2ForCausalLM(config).float().eval()
    reference.load_state_dict({name: tensors[name] for name in reference.state_dict()})
    ids = [1001, 3, 14, 159, 265, 358, 979]
    model.decode_tokens(ids)
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits[0, -1].numpy()
    assert close(model.logits(), expected, 1e-4)


@pytest.mark.parametrize("kv", KV_TYPES)
def test_types_of_keys_and_values_agree(gguf, model, kv: str) -> None:
    ids = list(range(100, 130))
    model.decode_tokens(ids)
    with LanguageModel(gguf, **options(kv=kv, flash_attention=None)) as other:
        other.decode_tokens(ids)
        assert close(other.logits(), model.logits(), {"f32": 1e-3, "f16": 1e-3, "q8_0": 0.1}[kv])


def test_quantised_keys_need_flash_attention(gguf) -> None:
    with pytest.raises(BadInput, match="--kv q8_0 needs flash attention"):
        LanguageModel(gguf, **options(kv="q8_0"))


@pytest.mark.parametrize("ids", [[-1], [1024], [5, -200]])
def test_tokens_outside_the_vocabulary_are_refused(model, ids: list[int]) -> None:
    with pytest.raises(BadInput, match=r"token id outside 0\.\.1023"):
        model.decode_tokens(ids)
    assert model.position == 0


@pytest.mark.parametrize("shape", [(3, 255), (3, 257), (256,), (1, 3, 256)])
def test_embeddings_of_another_shape_are_refused(model, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"this model takes \[L, 256\]"):
        model.decode_embeddings(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite_are_refused(model, value: float) -> None:
    rows = np.zeros((3, 256), np.float32)
    rows[1, 7] = value
    with pytest.raises(BadInput, match="NaN or infinity"):
        model.decode_embeddings(rows)
    assert model.position == 0


def test_a_full_context_refuses_more(model) -> None:
    model.decode_tokens([7] * 256)
    with pytest.raises(BadInput, match="need 257 positions, the context has 256"):
        model.decode_tokens([7])
    assert model.position == 256


def test_logits_before_anything_was_decoded(model) -> None:
    with pytest.raises(StllmError, match="holds no logits"):
        model.logits()


def test_logits_are_a_copy(model) -> None:
    model.decode_tokens([5])
    first = model.logits()
    kept = first.copy()
    model.decode_tokens([6])
    assert np.array_equal(first, kept)
    assert first.shape == (1024,)


def test_a_restarted_model_is_as_new(gguf, model) -> None:
    model.decode_tokens(range(40, 240))
    model.restart(256)
    model.decode_tokens([5, 6, 7])
    with LanguageModel(gguf, **options()) as other:
        other.decode_tokens([5, 6, 7])
        assert model.position == 3
        assert np.array_equal(model.logits(), other.logits())


def test_a_restart_makes_room(gguf, model) -> None:
    ids = np.random.default_rng(0).integers(0, 1000, 400)
    model.decode_tokens([5, 6, 7])
    model.restart(512)
    model.decode_tokens(ids)
    with LanguageModel(gguf, **options(context=512)) as other:
        other.decode_tokens(ids)
        assert np.array_equal(model.logits(), other.logits())


def test_a_closed_vocabulary_says_so(gguf) -> None:
    vocabulary = Vocabulary(gguf)
    vocabulary.close()
    for use in (lambda: vocabulary.piece(5), lambda: vocabulary.tokenize("a")):
        with pytest.raises(StllmError, match="the vocabulary was closed"):
            use()


def test_closing_twice_is_harmless(gguf) -> None:
    model, vocabulary = LanguageModel(gguf, **options()), Vocabulary(gguf)
    for loaded in (model, vocabulary):
        loaded.close()
        loaded.close()


# sampling and text


def test_temperature_zero_takes_the_best() -> None:
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    assert sample(logits, 0, np.random.default_rng(1)) == logits.argmax()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = np.array([0.0, 1.0, 2.0, -50.0], np.float32)
    generator = np.random.default_rng(2)
    draws = np.bincount([sample(logits, temperature, generator) for _ in range(4000)], minlength=4) / 4000
    weights = np.exp(logits / temperature)
    assert np.allclose(draws, weights / weights.sum(), atol=0.03)


def test_the_seed_decides_the_draws() -> None:
    logits = np.zeros(1000, np.float32)
    first, again, other = (sample(logits, 1.0, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("temperature", [1e-30, sys.float_info.min, 5e-324])
def test_tiny_temperatures_take_the_best(temperature: float) -> None:
    logits = np.array([3.0, 40.0, -40.0], np.float32)
    assert sample(logits, temperature, np.random.default_rng(0)) == 1


@pytest.mark.parametrize("text", ["plain", "na\u00efve \u4f60\u597d", "\U0001f600\U0001f600", ""])
def test_text_cut_anywhere_is_joined(text: str) -> None:
    data = text.encode()
    for size in (1, 2, 3, 5):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert "".join(decode_text(iter(pieces))) == text


def test_characters_wait_for_their_end() -> None:
    assert list(decode_text(iter([b"a\xe4", b"\xbd", b"\xa0b"]))) == ["a", "\u4f60b"]


def test_broken_text_is_marked() -> None:
    assert "".join(decode_text(iter([b"a\xffb", b"\xe4"]))) == "a\ufffdb\ufffd"
