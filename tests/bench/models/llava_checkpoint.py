"""A small LLaVA-1.5 checkpoint in the files of the hub's llava-1.5-7b-hf, with a LLaMA-like BPE tokenizer."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from bench.models.encoders.encoder import Encoder, Preprocessing, TextTower

WIDTH, PATCH, NATIVE, SIZE = 32, 14, 56, 42  # NATIVE: the checkpoint's own tower; SIZE: encoders put in its place
HUB_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant. USER: what is the mirror-image, 3 < 4 ?",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. ASSISTANT: a cat on a sofa.",
    "Answer the question using a single word or phrase. two dogs, a red car and three white birds near the sea",
] * 4


def raw_tokenizer() -> Tokenizer:
    """BPE with LLaMA's conventions: a space piece in front, bytes for what is unknown, no token for the image."""
    special = ["<unk>", "<s>", "</s>"]
    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces.pre_tokenizer = pre_tokenizers.Sequence(  # while training: no merges across words and marks
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split(Regex("[-:.,?>']"), "isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*special, *[f"<0x{b:02X}>" for b in range(256)]], show_progress=False
    )
    pieces.train_from_iterator(CORPUS, trainer)
    state = json.loads(pieces.to_str())
    state["pre_tokenizer"] = None
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in special]
    return Tokenizer.from_str(json.dumps(state))


def _write_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = raw_tokenizer()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False), AddedToken("<pad>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {t: tokenizer.token_to_id(t) for t in ("<image>", "<pad>")}
    _write(folder / "added_tokens.json", added)
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _write(folder / "special_tokens_map.json", named)
    flags = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    specials = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
    decoder = {str(tokenizer.token_to_id(t)): {"content": t, **flags} for t in specials}
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
            "padding_side": "left",
            "model_max_length": 10**30,
            "processor_class": "LlavaProcessor",
            "tokenizer_class": "LlamaTokenizer",
            "use_default_system_prompt": False,
            "trust_remote_code": False,
            "added_tokens_decoder": decoder,
            **named,
        },
    )
    return tokenizer


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2))


def _hub_name(name: str) -> str:
    """A tensor's name in the hub's files, which are older than transformers' present names."""
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        if name.startswith(new):
            return old + name.removeprefix(new)
    raise KeyError(name)


def write_llava(folder: Path, *, shards: int = 3, seed: int = 0, dtype: torch.dtype = torch.float16) -> Path:
    """Write every file of the hub's layout: config, shards with their index, tokenizer, processor, chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _write_tokenizer(folder)
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=NATIVE,
        patch_size=PATCH,
        projection_dim=16,
    )
    text = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size() + 6,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
    )
    image = tokenizer.token_to_id("<image>")
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_index=image)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.15)
    state = {_hub_name(k): v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    _write_shards(folder, state, shards)
    _write(
        folder / "config.json",
        {
            "architectures": ["LlavaForConditionalGeneration"],
            "ignore_index": -100,
            "image_token_index": image,
            "model_type": "llava",
            "pad_token_id": tokenizer.token_to_id("<pad>"),
            "projector_hidden_act": "gelu",
            "text_config": {
                "_name_or_path": "lmsys/vicuna-7b-v1.5",
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "max_position_embeddings": 1024,
                "rms_norm_eps": 1e-5,
                "torch_dtype": "float16",
                "vocab_size": text.vocab_size,
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
            },
            "tie_word_embeddings": False,
            "torch_dtype": str(dtype).removeprefix("torch."),
            "transformers_version": "4.36.0.dev0",
            "vision_config": {
                "hidden_size": WIDTH,
                "image_size": NATIVE,
                "intermediate_size": 64,
                "model_type": "clip_vision_model",
                "num_attention_heads": 2,
                "num_hidden_layers": 3,
                "patch_size": PATCH,
                "projection_dim": 16,
                "vocab_size": 32000,
            },
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "vocab_size": text.vocab_size,
        },
    )
    _write(
        folder / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": tokenizer.token_to_id("<pad>"),
            "transformers_version": "4.36.0.dev0",
        },
    )
    _write(
        folder / "processor_config.json",
        {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": PATCH,
            "processor_class": "LlavaProcessor",
            "vision_feature_select_strategy": "default",
        },
    )
    _write(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": NATIVE, "width": NATIVE},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "CLIPImageProcessor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "processor_class": "LlavaProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": NATIVE},
        },
    )
    _write(folder / "chat_template.json", {"chat_template": HUB_TEMPLATE})
    (folder / "chat_template.jinja").write_text(HUB_TEMPLATE)
    return folder


def _write_shards(folder: Path, state: dict[str, torch.Tensor], shards: int) -> None:
    names, index = sorted(state), {}
    for number in range(shards):
        part = {name: state[name] for name in names[number::shards]}
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    total = sum(v.numel() * v.element_size() for v in state.values())
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def small_encoder(width: int = WIDTH, seed: int = 1) -> Encoder:
    """An open_clip tower of 42 px and 9 patches that can stand in for the checkpoint's own."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(seed)
    visual = VisionTransformer(SIZE, PATCH, width, 3, 2, 2.0, output_dim=16)
    for parameter in visual.parameters():
        torch.nn.init.normal_(parameter, mean=0.0 if parameter.dim() > 1 else 0.5, std=0.15)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return Encoder(visual, Preprocessing(SIZE, mean, std), TextTower(torch.nn.Identity(), None))
