package config

// methodSFT is supervised fine-tuning: the loss of the answers that examples give.
var methodSFT = &Method{
	Name:    "sft",
	Summary: "learns the answers of chats, of prompts with completions and of instructions; any format of rows",
}
