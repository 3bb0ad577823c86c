import numpy as np
import pytest
from stllm_edge.runtime import BadInput, Bundle
from stllm_edge.runtime.llm.embeddings import embedding_rows


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
