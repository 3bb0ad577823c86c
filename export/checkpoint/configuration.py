"""Every key of a checkpoint's configuration files: read, held to a value, or without effect; others are refused.

The tables follow Qwen2's and SigLIP's configurations and the generation settings of transformers 4 and 5, LLaVA-NeXT's
trainer with what ST-LLM adds (SPEC sections 1 and 2), and PEFT's `LoraConfig`.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...runtime.errors import BadInput

__all__ = [
    "ADAPTER_KEYS",
    "CONFIG_KEYS",
    "GENERATION_KEYS",
    "ROPE_KEYS",
    "TOKENIZER_CONFIG_KEYS",
    "TOKENIZER_MODEL_KEYS",
    "TOWER_KEYS",
    "Keys",
    "positive",
]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """What is known of one file's keys. Those that begin with `_` are the libraries' own notes, and null is unset.

    Attributes:
        read: names that are read; whoever reads them checks their values.
        held: the values with which a model is the one that is exported, by name.
        idle: names without effect on what is exported, by the reason for which they have none.
        mend: what to do about a value that is not among those of `held`.
        told: like `held`, but another value is only said to have no effect.
    """

    read: str
    held: Mapping[str, tuple[Any, ...]]
    idle: Mapping[str, str]
    mend: str
    told: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def check(self, place: str, content: Mapping[str, Any]) -> None:
        """Go through the keys of a file; `place` names it in messages.

        Raises:
            BadInput: a key is not known, or has a value with which the model computes something else.
        """
        passed = {name for names in (self.read, *self.idle.values()) for name in names.split()}
        for key, value in content.items():
            if key.startswith("_") or key in passed or value in self.held.get(key, (None,)):
                continue
            if key in self.told:
                if value not in self.told[key]:
                    LOG.warning("%s: %s is %s, which stllm-run does not apply", place, key, json.dumps(value))
            elif key in self.held:
                usual = " or ".join(repr(usual) for usual in self.held[key] if usual is not None) or "none"
                raise BadInput(f"{place}: {key} is {value!r}; only {usual} is supported; {self.mend}")
            else:
                raise BadInput(
                    f"{place}: {key} is not a key that is known here, and may change the model; "
                    "if it has no effect on ST-LLM, remove it from the file"
                )


def positive(place: str, key: str, value: Any) -> float:
    """A value as a positive number; raises BadInput for any other."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise BadInput(f"{place}: {key} is {value!r}, expected a positive number")
    return float(value)


TRAINING = "of training alone: rates, dropout, what was frozen"
FILES = "describes the files; the tensors show what they hold"
OUTPUTS = "what else transformers returns beside the same numbers, or in what pieces it computes them"
CHOICE = "how a token is chosen is for stllm-run to say (--temperature)"
CORRECT = "correct it if the model was not trained so; else the model cannot be exported"
MERGE = "merge the adapter into its base with PEFT (merge_and_unload) and export the result"

GENERATION_KEYS = Keys(
    read="eos_token_id",
    held={
        **dict.fromkeys(
            (
                "bad_words_ids",
                "begin_suppress_tokens",
                "constraints",
                "dola_layers",
                "exponential_decay_length_penalty",
                "force_words_ids",
                "forced_bos_token_id",
                "forced_eos_token_id",
                "sequence_bias",
                "stop_strings",
                "suppress_tokens",
                "watermarking_config",
            ),
            (None, [], {}),
        ),
        **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale"), (None, 1)),
        **dict.fromkeys(
            ("encoder_no_repeat_ngram_size", "min_length", "min_new_tokens", "no_repeat_ngram_size", "penalty_alpha"),
            (None, 0),
        ),
        "token_healing": (None, False),
    },
    idle={
        CHOICE: "do_sample temperature top_k top_p top_h min_p typical_p epsilon_cutoff eta_cutoff renormalize_logits "
        "remove_invalid_values",
        "of several beams, which are told of": "early_stopping length_penalty num_beam_groups diversity_penalty "
        "num_return_sequences low_memory",
        "the length of an answer is --max-tokens": "max_length max_new_tokens max_time",
        "ids that are never generated or that only pad": "bos_token_id pad_token_id decoder_start_token_id",
        "ways to the same tokens": "use_cache cache_implementation cache_config max_cache_len prefill_chunk_size "
        "disable_compile compile_config continuous_batching_config is_assistant num_assistant_tokens "
        "num_assistant_tokens_schedule assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight "
        "assistant_lookbehind target_lookbehind prompt_lookup_num_tokens max_matching_ngram_size speculation_type "
        "use_mtp attn_implementation",
        "what else generate returns": "output_attentions output_hidden_states output_logits output_scores "
        "return_dict_in_generate",
        "which release wrote the file": "transformers_version",
    },
    mend="stllm-run has nothing like it; remove it to go without",
    told={"repetition_penalty": (None, 1), "num_beams": (None, 1)},
)

CONFIG_KEYS = Keys(
    read="hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size vocab_size "
    "max_position_embeddings rms_norm_eps tie_word_embeddings rope_theta rope_parameters rope_scaling head_dim "
    "layer_types eos_token_id mm_vision_tower mm_spatial_pool_stride",
    held={
        # transformers 4 lets a model's own configuration state how it generates
        **GENERATION_KEYS.held,
        "hidden_act": ("silu",),
        "use_sliding_window": (False,),
        "partial_rotary_factor": (None, 1),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_spatial_pool_mode": ("bilinear",),
        "mm_newline_position": ("grid",),
        "mm_resampler_type": (None,),
        "mm_use_im_start_end": (None, False),
        "add_faster_video": (None, False),
        "use_multiview": (None, False),
        "use_color": (None, True),
        "use_mm_proj": (None, True),
        "img_modality": (None, "video"),
        "pcd_modality": (None, "pointcloud"),
        "img_aligned_method": (None, "linear"),
        "pcd_aligned_method": (None, "linear"),
        "img_view_base_pe": (None, 127),
        "pcd_view_base_pe": (None, 127),
        "s2": (None, False),
        "text_config": (None, {}),
        "per_layer_config": (None, {}),
        "pruned_heads": (None, {}),
        "quantization_config": (None, {}),
        "is_encoder_decoder": (None, False),
        "add_cross_attention": (None, False),
        "cross_attention_hidden_size": (None,),
    },
    idle={
        **GENERATION_KEYS.idle,
        TRAINING: "attention_dropout initializer_range gradient_checkpointing mm_projector_lr "
        "mm_vision_tower_lr mm_tunable_parts tune_mm_mlp_adapter tune_mm_vision_resampler freeze_mm_mlp_adapter "
        "freeze_mm_vision_resampler freeze_backbone unfreeze_mm_vision_tower unfreeze_language_model "
        "pretrain_mm_mlp_adapter ignore_index use_pos_skipping pos_skipping_range tokenizer_model_max_length "
        "tokenizer_padding_side delay_load",
        FILES: "model_type architectures torch_dtype dtype auto_map name_or_path vision_tower_pretrained",
        "the tower's own configuration is read": "vision_config mm_hidden_size vision_tower mm_vision_tower_pretrained",
        "Qwen2 has no such choice": "attention_bias pretraining_tp",
        "the window of attention is off": "sliding_window max_window_layers",
        "pictures are what SPEC section 6 states": "image_aspect_ratio image_crop_resolution image_split_resolution "
        "image_grid_pinpoints image_token_index mm_patch_merge_type mm_vision_select_layer mm_vision_select_feature "
        "mm_use_im_patch_token vision_feature_layer vision_feature_select_strategy projector_hidden_act "
        "img_num_patches faster_token_stride s2_scales patchify_video_feature",
        "which frames, and whether their times are said, is for stllm-run to say": "add_time_instruction force_sample "
        "frames_upbound video_fps",
        "sizes that the tensors show": "img_feature_dim pcd_feature_dim img_encoder_feature_dim in_dim_proj "
        "out_dim_proj",
        "of the resampler that there is none of": "mm_mask_drop_mode mm_mask_drop_skip_percentage mm_mask_drop_ratio "
        "mm_mask_drop_ratio_upper mm_mask_drop_ratio_lower mm_spatial_pool_out_channels mm_perceiver_depth "
        "mm_perceiver_latents mm_perceiver_ff_mult mm_perceiver_pretrained mm_qformer_depth mm_qformer_latents "
        "mm_qformer_pretrained",
        "of a detector that the model never runs": "detector_model_name detector_pcd_feature_dim decoder_layer_d_model "
        "decoder_layer_dim_feedforward decoder_layer_dropout decoder_layer_nhead decoder_num_layers pcd_n_points "
        "use_height use_normal",
        OUTPUTS: "return_dict use_return_dict torchscript use_bfloat16 "
        "chunk_size_feed_forward tie_last_hidden_states tf_legacy_loss is_decoder",
        "of classifiers and encoders": "id2label label2id num_labels problem_type finetuning_task task_specific_params "
        "tie_encoder_decoder sep_token_id prefix tokenizer_class",
    },
    mend=CORRECT,
    told=GENERATION_KEYS.told,
)

ROPE_KEYS = Keys(
    read="rope_theta",
    held={
        "rope_type": ("default",),
        "type": ("default",),
        "partial_rotary_factor": (None, 1),
        **dict.fromkeys(
            (
                "factor",
                "original_max_position_embeddings",
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "short_factor",
                "long_factor",
                "low_freq_factor",
                "high_freq_factor",
                "mscale",
                "mscale_all_dim",
                "truncate",
                "mrope_section",
            ),
            (None,),
        ),
    },
    idle={},
    mend="scaled positions are not exported; if the model was not trained with them, remove the key",
)

TOWER_KEYS = Keys(
    read="hidden_size intermediate_size num_hidden_layers num_attention_heads image_size patch_size",
    held={
        "model_type": ("siglip_vision_model", "siglip", None),
        "hidden_act": ("gelu_pytorch_tanh",),
        "layer_norm_eps": (1e-6,),
        "num_channels": (3,),
        "quantization_config": (None, {}),
    },
    idle={
        TRAINING: "attention_dropout dropout initializer_range initializer_factor",
        FILES: "architectures torch_dtype dtype transformers_version name_or_path",
        "the pooling head is not run": "vision_use_head projection_dim",
        OUTPUTS: "return_dict use_return_dict output_attentions output_hidden_states torchscript "
        "chunk_size_feed_forward attn_implementation is_encoder_decoder",
        "of classifiers": "id2label label2id problem_type num_labels",
    },
    mend=CORRECT,
)

TOKENIZER_MODEL_KEYS = Keys(
    read="type vocab merges",
    held={
        "dropout": (None, 0),
        "unk_token": (None,),
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), (None, False)),
    },
    idle={},
    mend="Qwen2's tokenizer has no other; save the one that the model was trained with",
)

# of the many keys only those that change ids
TOKENIZER_CONFIG_KEYS = Keys(
    read="",
    held={
        "tokenizer_class": (
            "Qwen2Tokenizer",
            "Qwen2TokenizerFast",
            "PreTrainedTokenizerFast",
            "TokenizersBackend",
            None,
        ),
        **dict.fromkeys(("add_prefix_space", "split_special_tokens", "add_bos_token", "add_eos_token"), (None, False)),
    },
    idle={},
    mend="Qwen2's tokenizer has no other; correct it if the model was not trained so",
)

ADAPTER_KEYS = Keys(
    read="r lora_alpha use_rslora use_dora rank_pattern alpha_pattern bias modules_to_save base_model_name_or_path",
    held={
        "peft_type": ("LORA",),
        # the others take something from the base, which the adapter's files do not tell
        "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "mica", None),
        **dict.fromkeys(("fan_in_fan_out", "lora_bias", "use_qalora", "ensure_weight_tying"), (None, False)),
        **dict.fromkeys(
            (
                "layer_replication",
                "target_parameters",
                "trainable_token_indices",
                "alora_invocation_tokens",
                "megatron_config",
                "monteclora_config",
                "arrow_config",
                "kasa_config",
                "use_bdlora",
            ),
            (None, [], {}, False),
        ),
    },
    idle={
        TRAINING: "lora_dropout inference_mode velora_config runtime_config",
        "how the pair began, which init_lora_weights states": "loftq_config eva_config corda_config lora_ga_config",
        "which weights were trained shows in the pairs": "target_modules exclude_modules layers_to_transform "
        "layers_pattern",
        FILES: "task_type auto_mapping revision peft_version",
        "of an option that is off": "megatron_core qalora_group_size",
    },
    mend=MERGE,
)
