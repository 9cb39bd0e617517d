"""Tiny models of random weights, one of each kind that people use, with processors and templates in their own form."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.smolvlm import processing_smolvlm

from tests.bench.models.victims.any_model.tokens import tokenizer

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 16,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_CHAT = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IDEFICS_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>{% else %}"
    "{{ part['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PIXTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}[IMG]{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}[/INST]{% else %}{{ message['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
Built = tuple[Any, Any]  # model and processor


def _vicuna() -> Any:
    return tokenizer(["<image>"], begin="<s>", end="</s>")


def _clip_pixels(kind: type, size: int = 28, **more: Any) -> Any:
    return kind(size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **more)


def llava() -> Built:
    """LLaVA-1.5."""
    words = _vicuna()
    config = hf.LlavaConfig(
        vision_config=CLIP,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    pixels = _clip_pixels(hf.CLIPImageProcessor, CLIP["image_size"])
    processor = hf.LlavaProcessor(
        pixels,
        words,
        patch_size=CLIP["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_next() -> Built:
    """LLaVA-NeXT (1.6): tiles of a grid and the whole image."""
    words, grids = _vicuna(), [[28, 56], [56, 28], [56, 56]]
    config = hf.LlavaNextConfig(
        vision_config=CLIP,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grids,
    )
    pixels = _clip_pixels(hf.LlavaNextImageProcessor, image_grid_pinpoints=grids)
    processor = hf.LlavaNextProcessor(
        pixels,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def _chatml(image: str, *more: str) -> Any:
    return tokenizer(["<|im_start|>", "<|im_end|>", image, *more], end="<|im_end|>")


def llava_onevision() -> Built:
    """LLaVA-OneVision: SigLIP's features of tiles."""
    words, grids = _chatml("<image>", "<video>"), [[28, 56], [56, 28], [56, 56]]
    config = hf.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(words)},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
    )
    pixels = hf.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=grids)
    processor = hf.LlavaOnevisionProcessor(
        pixels,
        words,
        hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen(config_class: type, model: type, processor_class: type, vision: Mapping[str, Any], patch: int) -> Built:
    marks = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    marks |= {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    words = _chatml(*marks.values())
    text = {**TEXT, "vocab_size": len(words), "head_dim": 8}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    config = config_class(
        vision_config=dict(vision),
        text_config=text,
        **{name: words.convert_tokens_to_ids(token) for name, token in marks.items()},
    )
    pixels = hf.Qwen2VLImageProcessor(
        size={"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}, patch_size=patch
    )
    template = CHATML.replace("IMAGE", QWEN_IMAGE)
    videos = hf.Qwen3VLVideoProcessor if "Qwen3" in processor_class.__name__ else hf.Qwen2VLVideoProcessor
    return model(config), processor_class(pixels, words, videos(), chat_template=template)


def qwen2_vl() -> Built:
    """Qwen2-VL: as many tokens as the image has patches."""
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    return _qwen(hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLProcessor, vision, 14)


def qwen2_5_vl() -> Built:
    """Qwen2.5-VL: with attention in windows."""
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"fullatt_block_indexes": [1], "window_size": 56}
    return _qwen(hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration, hf.Qwen2_5_VLProcessor, vision, 14)


def qwen3_vl() -> Built:
    """Qwen3-VL: features of several depths."""
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return _qwen(hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLProcessor, vision, 16)


def internvl() -> Built:
    """InternVL3 in transformers' own format."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    named |= {"image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    words = tokenizer(["<|im_start|>"], end="<|im_end|>", **named)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.InternVLConfig(
        vision_config={**vision, "image_size": [28, 28], "patch_size": [7, 7]},
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(words)},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    pixels = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4)
    template = CHATML.replace("IMAGE", "<IMG_CONTEXT>\n")
    videos = hf.InternVLVideoProcessor()
    processor = hf.InternVLProcessor(pixels, words, videos, image_seq_length=4, chat_template=template)
    return hf.InternVLForConditionalGeneration(config), processor


def _idefics(config_class: type, model: type) -> Built:
    cells = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", *cells]
    words = tokenizer(["<|im_start|>", *marks], end="<end_of_utterance>")
    vision = {k: v for k, v in SIGLIP.items() if k not in ("model_type", "vision_use_head")}
    config = config_class(
        vision_config=vision,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words), "pad_token_id": words.pad_token_id},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return model(config), words


IDEFICS_PIXELS = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}


def idefics3() -> Built:
    """Idefics3, and SmolVLM of the same model type: a grid of tiles and the whole image."""
    model, words = _idefics(hf.Idefics3Config, hf.Idefics3ForConditionalGeneration)
    pixels = hf.Idefics3ImageProcessor(**IDEFICS_PIXELS)
    return model, hf.Idefics3Processor(pixels, words, image_seq_len=1, chat_template=IDEFICS_CHAT)


def smolvlm() -> Built:
    """SmolVLM2. Its processor asks for the package num2words, which spells out the times of a video's frames."""
    processing_smolvlm.num2words = str
    model, words = _idefics(hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration)
    pixels, videos = hf.SmolVLMImageProcessor(**IDEFICS_PIXELS), hf.SmolVLMVideoProcessor(**IDEFICS_PIXELS)
    return model, hf.SmolVLMProcessor(pixels, words, videos, image_seq_len=1, chat_template=IDEFICS_CHAT)


def paligemma() -> Built:
    """PaliGemma: image and prompt see each other, and there is no chat template."""
    words = tokenizer(["<image>"], begin="<bos>", end="<eos>")
    text = {**TEXT, "model_type": "gemma", "vocab_size": len(words) + 2000, "head_dim": 8}
    config = hf.PaliGemmaConfig(
        vision_config=SIGLIP,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    pixels = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    pixels.image_seq_length = 4
    return hf.PaliGemmaForConditionalGeneration(config), hf.PaliGemmaProcessor(pixels, words)


def gemma3() -> Built:
    """Gemma 3: an image's tokens see each other, sliding windows in most layers."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(["<start_of_turn>", "<end_of_turn>"], begin="<bos>", end="<eos>", **named)
    text = {**TEXT, "vocab_size": len(words), "head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8}
    ids = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    config = hf.Gemma3Config(
        vision_config=SIGLIP,
        text_config={**text, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id},
        mm_tokens_per_image=4,
        image_token_index=ids["image_token"],
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
    )
    pixels = hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}, image_seq_length=4)
    processor = hf.Gemma3Processor(pixels, words, chat_template=GEMMA_CHAT, image_seq_length=4)
    return hf.Gemma3ForConditionalGeneration(config), processor


def pixtral() -> Built:
    """Pixtral: a LLaVA whose tower takes images of any size."""
    marks = ["[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    words = tokenizer(marks, begin="<s>", end="</s>")
    vision = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = hf.LlavaConfig(
        vision_config={**vision, "num_attention_heads": 2, "image_size": 64, "patch_size": 16},
        text_config={**TEXT, "model_type": "mistral", "vocab_size": len(words), "head_dim": 8},
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    pixels = hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size={"height": 16, "width": 16})
    return hf.LlavaForConditionalGeneration(config), hf.PixtralProcessor(pixels, words, chat_template=PIXTRAL_CHAT)


def mllama() -> Built:
    """Llama 3.2 Vision: tiles behind cross-attention."""
    marks = ["<|image|>", "<|python_tag|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    words = tokenizer([*marks[1:], "<|eot_id|>"], begin="<|begin_of_text|>", end="<|eot_id|>", image_token=marks[0])
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "image_size": 28, "patch_size": 14, "intermediate_layers_indices": [1]}
    vision |= {"vision_output_dim": 64, "max_num_tiles": 4, "supported_aspect_ratios": RATIOS}
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    image = words.convert_tokens_to_ids("<|image|>")
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1], "vocab_size": image, **ids}
    config = hf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=image)
    pixels = hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4)
    return hf.MllamaForConditionalGeneration(config), hf.MllamaProcessor(pixels, words, chat_template=LLAMA_CHAT)


RATIOS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
QFORMER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
BLIP = {k: v for k, v in SIGLIP.items() if k not in ("model_type", "vision_use_head")} | {"initializer_range": 0.02}


def blip_2() -> Built:
    """BLIP-2 with OPT: a query transformer's few tokens, no chat template."""
    words = tokenizer(["<image>"], begin="</s>", end="</s>")
    text = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.Blip2Config(
        vision_config=BLIP,
        qformer_config={**QFORMER, "encoder_hidden_size": 32},
        text_config={**text, "vocab_size": len(words), "word_embed_proj_dim": 32, "pad_token_id": words.pad_token_id},
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    pixels = hf.BlipImageProcessor(size={"height": 28, "width": 28})
    return hf.Blip2ForConditionalGeneration(config), hf.Blip2Processor(pixels, words, num_query_tokens=4)


def instructblip() -> Built:
    """InstructBLIP with Vicuna: its query transformer reads the question, too."""
    words, queries = _vicuna(), tokenizer(["[CLS]"], begin="[CLS]", end="[SEP]")
    config = hf.InstructBlipConfig(
        vision_config=BLIP,
        qformer_config={**QFORMER, "encoder_hidden_size": 32, "vocab_size": len(queries)},
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    pixels = hf.BlipImageProcessor(size={"height": 28, "width": 28})
    processor = hf.InstructBlipProcessor(pixels, words, queries, num_query_tokens=4)
    return hf.InstructBlipForConditionalGeneration(config), processor


KINDS: dict[str, Callable[[], Built]] = {
    "LLaVA-1.5": llava,
    "LLaVA-NeXT": llava_next,
    "LLaVA-OneVision": llava_onevision,
    "Qwen2-VL": qwen2_vl,
    "Qwen2.5-VL": qwen2_5_vl,
    "Qwen3-VL": qwen3_vl,
    "InternVL3": internvl,
    "Idefics3, SmolVLM": idefics3,
    "SmolVLM2": smolvlm,
    "PaliGemma": paligemma,
    "Gemma 3": gemma3,
    "Pixtral": pixtral,
    "Llama 3.2 Vision": mllama,
    "BLIP-2": blip_2,
    "InstructBLIP": instructblip,
}
"""What people call each kind, and what builds it."""


def _say_words_only(model: Any, words: Any) -> None:
    """Give every token but those of letters the logit 0, so that answers are words and can be scored."""
    head = model.get_output_embeddings().weight
    spelt = [words.decode([token]).strip() for token in range(len(head))]
    silent = [not (text.isascii() and text.isalpha()) for text in spelt]
    with torch.no_grad():
        head[torch.tensor(silent)] = 0


def write(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny checkpoint of a kind as transformers writes it."""
    torch.manual_seed(seed)
    model, processor = KINDS[kind]()
    for name, parameter in model.named_parameters():
        one = parameter.dim() == 1 and "weight" in name
        torch.nn.init.normal_(parameter, mean=1.0 if one else 0.0, std=0.15)
    words = processor.tokenizer
    _say_words_only(model, words)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
