from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stllm_edge.runtime import BadBundle, BadInput, Bundle, StllmError
from stllm_edge.runtime.llm.embeddings import embedding_rows
from stllm_edge.runtime.llm.libllama import libllama, load_model
from stllm_edge.runtime.llm.model import LanguageModel
from stllm_edge.runtime.llm.placement import KV_TYPES

VOCABULARY = 1024


def options(**changed: object) -> dict[str, object]:
    return {"vocabulary": VOCABULARY, "context": 256, "kv": "f32", "flash_attention": False, "threads": 1, **changed}


@pytest.fixture
def model(gguf: Path) -> Iterator[LanguageModel]:
    with LanguageModel(gguf, **options()) as loaded:
        yield loaded


def close(ours: np.ndarray, theirs: np.ndarray, limit: float = 1e-5) -> bool:
    return bool(np.linalg.norm(ours - theirs) <= limit * np.linalg.norm(theirs))


@pytest.mark.parametrize("content", [b"", b"no gguf", b"GGUF\x03\0\0\0"])
def test_files_that_libllama_refuses(tmp_path, content: bytes) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(BadBundle, match=r"broken\.gguf: libllama could not load it"):
        LanguageModel(file, **options())


def test_a_truncated_model_is_refused(gguf, tmp_path) -> None:
    file = tmp_path / "short.gguf"
    file.write_bytes(gguf.read_bytes()[:-1000])
    with pytest.raises(BadBundle, match=r"short\.gguf"):
        LanguageModel(file, **options())


@pytest.mark.parametrize("rows", [0, 1, 1023, 1025, 2**33])
def test_another_number_of_rows_than_the_file_s_is_refused(gguf, rows: int) -> None:
    with pytest.raises(BadBundle, match=r"F32\.gguf: libllama could not load it"):
        LanguageModel(gguf, **options(vocabulary=rows))


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_K_M"])
def test_logits_do_not_need_the_tokenizer(tiny_bundle, quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit those of the model as libllama loads it by itself, tokenizer included."""
    file, ids = tiny_bundle / "llm" / f"{quant}.gguf", [1001, 5, 1023, 0, 700]
    llama = libllama()
    with LanguageModel(file, **options()) as model:
        model.decode_tokens(ids)
        ours = model.logits()
        assert llama.llama_vocab_type(llama.llama_model_get_vocab(model._model)) == llama.LLAMA_VOCAB_TYPE_NONE
    monkeypatch.setattr(
        "stllm_edge.runtime.llm.model.load_model", lambda path, *_, **choice: load_model(path, **choice)
    )
    with LanguageModel(file, **options()) as model:
        model.decode_tokens(ids)
        assert llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model._model)) == VOCABULARY
        assert np.array_equal(ours, model.logits())


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


def test_closing_twice_is_harmless(gguf) -> None:
    model = LanguageModel(gguf, **options())
    model.close()
    model.close()
