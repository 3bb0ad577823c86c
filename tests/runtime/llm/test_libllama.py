import logging
from pathlib import Path

import pytest
from stllm_edge.runtime import MissingDependency
from stllm_edge.runtime.llm.libllama import assign, libllama, load_model


def test_a_field_that_is_not_there_is_refused() -> None:
    parameters = libllama().llama_model_default_params()
    with pytest.raises(MissingDependency, match=r"no llama_model_params\.use_mmapp; install"):
        assign(parameters, use_mmapp=True)


def test_options_that_libllama_does_not_have_are_refused(gguf: Path) -> None:
    with pytest.raises(MissingDependency, match="vocabulary_only"):
        load_model(gguf, vocabulary_only=True)


def test_metadata_takes_the_place_of_the_file_s(gguf: Path) -> None:
    llama = libllama()
    model = load_model(gguf, {"qwen2.context_length": 12345, "general.name": "other"})
    try:
        assert llama.llama_model_n_ctx_train(model) == 12345
    finally:
        llama.llama_model_free(model)


def test_what_libllama_says_is_logged(gguf: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "stllm_edge"):
        libllama().llama_model_free(load_model(gguf, vocab_only=True))
    assert any(record.message.startswith("libllama: ") for record in caplog.records)
