package arch

// familyTable is the census of all descriptions: pre, layer and post weights, then optional ones, aliases, tied names,
// vocabulary axes, the key (or fixed number) of layers, and the checksum.
var familyTable = []census{
	{"afmoe", "default", 1, 19, 2, 9, 0, 1, 2, "num_hidden_layers", 0x2802228e},
	{"apertus", "default", 1, 14, 2, 1, 0, 1, 2, "num_hidden_layers", 0x2218980a},
	{"arcee", "default", 1, 8, 2, 1, 0, 1, 2, "num_hidden_layers", 0x61ccef29},
	{"baichuan", "default", 1, 7, 2, 0, 0, 0, 2, "num_hidden_layers", 0x9cc7a512},
	{"bert", "default", 6, 16, 2, 1, 36, 0, 1, "num_hidden_layers", 0xda5ce59b},
	{"bert-masked-lm", "default", 6, 16, 8, 8, 8, 1, 3, "num_hidden_layers", 0x9df0e52e},
	{"bert-sequence-classification", "default", 6, 16, 4, 3, 6, 0, 1, "num_hidden_layers", 0x2ad57f08},
	{"chatglm", "default", 2, 7, 2, 1, 0, 0, 2, "num_hidden_layers", 0xba7940fb},
	{"cohere", "default", 1, 14, 2, 7, 0, 0, 2, "num_hidden_layers", 0x5798d5f3},
	{"cohere2", "default", 1, 8, 2, 1, 0, 0, 2, "num_hidden_layers", 0x2f9c7be7},
	{"distilbert", "default", 4, 16, 0, 0, 24, 0, 1, "num_hidden_layers", 0xbe80575f},
	{"distilbert-masked-lm", "default", 4, 16, 6, 1, 2, 1, 3, "num_hidden_layers", 0xe2025c8c},
	{"distilbert-sequence-classification", "default", 4, 16, 4, 0, 2, 0, 1, "num_hidden_layers", 0xccaac728},
	{"distilbert-token-classification", "default", 4, 16, 2, 0, 2, 0, 1, "num_hidden_layers", 0x07c643f7},
	{"exaone", "default", 1, 9, 2, 1, 0, 1, 2, "num_hidden_layers", 0xc43feca8},
	{"falcon", "default", 1, 16, 3, 13, 0, 1, 2, "num_hidden_layers", 0xa4b1674f},
	{"gemma", "default", 1, 16, 1, 7, 0, 0, 1, "num_hidden_layers", 0x7455564d},
	{"gemma2", "default", 1, 11, 2, 1, 0, 1, 2, "num_hidden_layers", 0x76c48717},
	{"gemma3", "default", 1, 13, 2, 1, 0, 1, 2, "num_hidden_layers", 0xd01aed33},
	{"gemma3vl", "text_decoder", 1, 13, 2, 1, 16, 2, 2, "text_config.num_hidden_layers", 0x4fc8e109},
	{"gemma3vl", "multi_modal_projector", 2, 0, 0, 0, 2, 0, 0, "0", 0x579168c7},
	{"gemma3vl", "vision_tower", 3, 16, 2, 0, 63, 0, 0, "vision_config.num_hidden_layers", 0x177af889},
	{"glm4", "default", 1, 13, 2, 4, 0, 1, 2, "num_hidden_layers", 0xbd129593},
	{"glm4moe", "default", 1, 14, 2, 6, 0, 1, 2, "num_hidden_layers", 0xb0a10f6e},
	{"gpt-neox", "default", 1, 15, 3, 4, 0, 1, 2, "num_hidden_layers", 0x9f5d2347},
	{"gpt2", "default", 2, 12, 3, 1, 16, 2, 2, "n_layer", 0xd92b8824},
	{"gpt2-sequence-classification", "default", 2, 12, 3, 0, 0, 0, 1, "n_layer", 0xc1b9bfd0},
	{"gptbigcode", "default", 2, 12, 3, 1, 0, 1, 2, "n_layer", 0xe978f26f},
	{"granite", "default", 1, 16, 2, 8, 0, 1, 2, "num_hidden_layers", 0xc2886a7b},
	{"granite4moehybrid", "default", 1, 19, 2, 16, 0, 1, 2, "num_hidden_layers", 0x83d80fbc},
	{"internlm2", "default", 1, 7, 2, 1, 0, 1, 2, "num_hidden_layers", 0x47e404f5},
	{"jais", "default", 2, 14, 2, 0, 0, 0, 1, "n_layer", 0xcdd1983e},
	{"lfm2", "default", 2, 14, 1, 10, 0, 0, 2, "num_hidden_layers", 0xa20e79b1},
	{"llama", "default", 1, 16, 2, 8, 0, 1, 2, "num_hidden_layers", 0x36eab7d2},
	{"llama-sequence-classification", "default", 1, 16, 3, 8, 0, 0, 1, "num_hidden_layers", 0x409314fe},
	{"llama4", "text_decoder", 1, 15, 2, 10, 18, 2, 2, "text_config.num_hidden_layers", 0x9107d3ce},
	{"llama4", "multi_modal_projector", 1, 0, 0, 0, 1, 0, 0, "0", 0x34d8692e},
	{"llama4", "vision_model", 5, 16, 4, 0, 25, 0, 0, "vision_config.num_hidden_layers", 0x7473caec},
	{"mamba", "default", 1, 10, 2, 1, 0, 1, 2, "num_hidden_layers", 0xd82f776e},
	{"mistral", "default", 1, 16, 2, 8, 0, 1, 2, "num_hidden_layers", 0x36eab7d2},
	{"mistral3", "text_decoder", 1, 16, 2, 8, 19, 2, 2, "text_config.num_hidden_layers", 0x0b83c368},
	{"mistral3", "multi_modal_projector", 4, 0, 0, 0, 4, 0, 0, "0", 0x5533eaaa},
	{"mistral3", "vision_tower", 2, 9, 0, 0, 11, 0, 0, "vision_config.num_hidden_layers", 0xcb12248a},
	{"mixtral", "default", 1, 9, 2, 1, 0, 1, 2, "num_hidden_layers", 0x1e6610b7},
	{"olmo2", "default", 1, 11, 2, 1, 0, 1, 2, "num_hidden_layers", 0xa0a3fd14},
	{"phi-1", "default", 1, 11, 4, 1, 0, 0, 3, "n_layer", 0x298ac4b5},
	{"phi2", "default", 1, 14, 4, 0, 0, 0, 3, "num_hidden_layers", 0xcec327a8},
	{"phi2-old", "default", 1, 10, 4, 0, 0, 0, 3, "n_layer", 0x6f4eb972},
	{"phi3", "default", 1, 6, 2, 1, 0, 1, 2, "num_hidden_layers", 0x67bca9eb},
	{"phi3-small", "default", 1, 12, 3, 1, 0, 1, 2, "num_hidden_layers", 0x8438f40f},
	{"qwen", "default", 1, 8, 2, 0, 0, 0, 2, "num_hidden_layers", 0x0de82f0d},
	{"qwen2", "default", 1, 12, 2, 1, 0, 1, 2, "num_hidden_layers", 0x330b4b7d},
	{"qwen2_5_vl", "text_decoder", 1, 12, 2, 1, 14, 2, 2, "text_config.num_hidden_layers", 0xf8d801dc},
	{"qwen2_5_vl", "multi_modal_projector", 1, 2, 0, 0, 3, 0, 0, "2", 0xc46711d9},
	{"qwen2_5_vl", "vision_tower", 1, 12, 0, 0, 13, 0, 0, "vision_config.depth", 0xd5d2819e},
	{"qwen2_vl", "text_decoder", 1, 12, 2, 1, 14, 2, 2, "num_hidden_layers", 0x9be2f7ce},
	{"qwen2_vl", "multi_modal_projector", 2, 2, 0, 0, 4, 0, 0, "2", 0x3bea3cf1},
	{"qwen2_vl", "vision_tower", 1, 12, 0, 0, 13, 0, 0, "vision_config.depth", 0x61648f6c},
	{"qwen3", "default", 1, 15, 2, 5, 0, 1, 2, "num_hidden_layers", 0xb5cb699c},
	{"qwen3_moe", "default", 1, 11, 2, 1, 0, 1, 2, "num_hidden_layers", 0x7ef27df9},
	{"qwen3_vl", "text_decoder", 1, 11, 2, 1, 0, 1, 2, "text_config.num_hidden_layers", 0x15dfe43d},
	{"qwen3_vl", "multi_modal_projector", 6, 6, 0, 0, 0, 0, 0, "3", 0x83687cca},
	{"qwen3_vl", "vision_tower", 3, 12, 0, 0, 0, 0, 0, "vision_config.depth", 0xb51320eb},
	{"qwen3_vl_dense", "text_decoder", 1, 11, 2, 1, 0, 1, 2, "text_config.num_hidden_layers", 0x74bc2c9c},
	{"qwen3_vl_dense", "multi_modal_projector", 6, 6, 0, 0, 0, 0, 0, "3", 0x83687cca},
	{"qwen3_vl_dense", "vision_tower", 3, 12, 0, 0, 0, 0, 0, "vision_config.depth", 0xb51320eb},
	{"roberta", "default", 6, 16, 2, 1, 24, 0, 1, "num_hidden_layers", 0x8244b322},
	{"roberta-masked-lm", "default", 6, 16, 6, 2, 0, 1, 3, "num_hidden_layers", 0x5010feed},
	{"roberta-sequence-classification", "default", 6, 16, 4, 1, 0, 0, 1, "num_hidden_layers", 0xcd8f2e94},
	{"roberta-token-classification", "default", 6, 16, 2, 1, 0, 0, 1, "num_hidden_layers", 0xadabb1a9},
	{"solar", "default", 1, 9, 2, 1, 0, 2, 2, "num_hidden_layers", 0x589daca9},
	{"stablelm", "default", 1, 11, 2, 0, 0, 0, 2, "num_hidden_layers", 0x91f9bdc6},
	{"stablelm2", "default", 1, 14, 3, 4, 0, 1, 2, "num_hidden_layers", 0x48bb70db},
	{"starcoder2", "default", 1, 16, 3, 1, 0, 1, 2, "num_hidden_layers", 0x1ba46bfa},
	{"t5", "decoder", 1, 16, 1, 5, 0, 3, 1, "num_decoder_layers", 0xa7838ae8},
	{"t5", "encoder", 1, 11, 1, 5, 0, 3, 1, "num_hidden_layers", 0xe49fee14},
	{"t5", "shared", 1, 0, 1, 1, 0, 3, 2, "0", 0xd7f7491b},
	{"vit", "default", 4, 16, 4, 5, 24, 0, 0, "num_hidden_layers", 0xccfb7e38},
	{"vit-image-classification", "default", 4, 16, 4, 3, 0, 0, 0, "num_hidden_layers", 0xe62f5953},
	{"whisper", "decoder", 2, 24, 2, 0, 0, 0, 1, "decoder_layers", 0xd1ff45a3},
	{"whisper", "encoder", 5, 15, 2, 0, 0, 0, 0, "encoder_layers", 0xec6d43fa},
}

// familyHeads lists families with model_type and classes, and what differs from the defaults.
const familyHeads = `afmoe: afmoe AfmoeForCausalLM
apertus: apertus ApertusForCausalLM
arcee: arcee ArceeForCausalLM
baichuan: baichuan BaichuanForCausalLM
bert: bert BertModel
bert-masked-lm: bert BertForMaskedLM
bert-sequence-classification: bert BertForSequenceClassification BertForMultipleChoice BertForTokenClassification
chatglm: chatglm ChatGLMModel
cohere: cohere CohereForCausalLM
cohere2: cohere2 Cohere2ForCausalLM
distilbert: distilbert DistilBertModel
distilbert-masked-lm: distilbert DistilBertForMaskedLM
distilbert-sequence-classification: distilbert DistilBertForSequenceClassification
distilbert-token-classification: distilbert DistilBertForTokenClassification
exaone: exaone ExaoneForCausalLM
falcon: falcon FalconForCausalLM
gemma: gemma GemmaForCausalLM
gemma2: gemma2 Gemma2ForCausalLM
gemma3: gemma3_text Gemma3ForCausalLM
gemma3vl: gemma3 Gemma3ForConditionalGeneration; vocab text_config.vocab_size; with preprocessor_config.json processor_config.json
glm4: glm4 Glm4ForCausalLM
glm4moe: glm4_moe Glm4MoeForCausalLM
gpt-neox: gpt_neox GPTNeoXForCausalLM
gpt2: gpt2 GPT2LMHeadModel
gpt2-sequence-classification: gpt2 GPT2ForSequenceClassification
gptbigcode: gpt_bigcode GPTBigCodeForCausalLM
granite: granite GraniteForCausalLM
granite4moehybrid: granitemoehybrid GraniteMoeHybridForCausalLM
internlm2: internlm2 InternLM2ForCausalLM
jais: jais JAISLMHeadModel
lfm2: lfm2 Lfm2ForCausalLM
llama: llama LlamaForCausalLM LLaMaForCausalLM
llama-sequence-classification: llama LlamaForSequenceClassification
llama4: llama4 Llama4ForConditionalGeneration; vocab text_config.vocab_size; with preprocessor_config.json processor_config.json
mamba: mamba MambaForCausalLM
mistral: mistral MistralForCausalLM
mistral3: mistral3 Mistral3ForConditionalGeneration; vocab text_config.vocab_size; with preprocessor_config.json processor_config.json
mixtral: mixtral MixtralForCausalLM
olmo2: olmo2 Olmo2ForCausalLM
phi-1: mixformer-sequential MixFormerSequentialForCausalLM
phi2: phi PhiForCausalLM
phi2-old: phi-msft PhiForCausalLM
phi3: phi3 Phi3ForCausalLM
phi3-small: phi3small Phi3SmallForCausalLM
qwen: qwen QWenLMHeadModel
qwen2: qwen2 Qwen2ForCausalLM
qwen2_5_vl: qwen2_5_vl Qwen2_5_VLForConditionalGeneration; with preprocessor_config.json vocab.json
qwen2_vl: qwen2_vl Qwen2VLForConditionalGeneration; with preprocessor_config.json vocab.json
qwen3: qwen3 Qwen3ForCausalLM
qwen3_moe: qwen3_moe Qwen3MoeForCausalLM
qwen3_vl: qwen3_vl_moe Qwen3VLMoeForConditionalGeneration; with preprocessor_config.json vocab.json
qwen3_vl_dense: qwen3_vl Qwen3VLForConditionalGeneration; vocab text_config.vocab_size; with preprocessor_config.json vocab.json
roberta: roberta RobertaModel
roberta-masked-lm: roberta RobertaForMaskedLM
roberta-sequence-classification: roberta RobertaForSequenceClassification
roberta-token-classification: roberta RobertaForTokenClassification
solar: solar SolarForCausalLM
stablelm: stablelm_epoch StableLMEpochForCausalLM
stablelm2: stablelm StableLmForCausalLM
starcoder2: starcoder2 Starcoder2ForCausalLM
t5: t5 T5ForConditionalGeneration
vit: vit ViTModel
vit-image-classification: vit ViTForImageClassification
whisper: whisper WhisperForConditionalGeneration; with preprocessor_config.json normalizer.json
`
