// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/config.hpp>

#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>

using namespace troika;
using namespace troika::models;
using Catch::Matchers::ContainsSubstring;
using troika::test::TempFolder;

TEST_CASE("The config of Llama 3.2 1B is read as transformers reads it") {
  const auto config =
      ModelConfig::parse(R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,"attention_dropout":0.0,
    "bos_token_id":128000,"eos_token_id":[128001,128008,128009],"head_dim":64,"hidden_act":"silu","hidden_size":2048,
    "initializer_range":0.02,"intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama",
    "num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,"pretraining_tp":1,"rms_norm_eps":1e-05,
    "rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
    "rope_theta":500000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","transformers_version":"4.45.0","use_cache":true,"vocab_size":128256})");
  CHECK(config.architecture == Architecture::llama);
  CHECK(config.hidden_size == 2048);
  CHECK(config.intermediate_size == 8192);
  CHECK(config.layers == 16);
  CHECK(config.heads == 32);
  CHECK(config.kv_heads == 8);
  CHECK(config.head_dim == 64);
  CHECK(config.vocab_size == 128256);
  CHECK(config.max_position_embeddings == 131072);
  CHECK(config.norm_eps == 1e-5f);
  CHECK(config.rope_theta == 500000.0);
  CHECK(config.rope_scaling == Llama3RopeScaling{32, 1, 4, 8192});
  CHECK(config.tie_word_embeddings);
  CHECK(config.dtype == DType::bf16);
  CHECK(config.bos_token_id == 128000);
  CHECK(config.eos_token_ids == std::vector<std::int32_t>{128001, 128008, 128009});
  CHECK(!config.qkv_bias);
  CHECK(!config.qk_norm);
  CHECK(config.attention_window(3) == 0);
}

TEST_CASE("What a config leaves out is what transformers takes") {
  const auto llama = ModelConfig::parse(R"({"model_type":"llama"})");
  CHECK(llama.vocab_size == 32000);
  CHECK(llama.intermediate_size == 11008);
  CHECK(llama.kv_heads == 32);
  CHECK(llama.head_dim == 128);
  CHECK(llama.max_position_embeddings == 2048);
  CHECK(llama.norm_eps == 1e-6f);
  CHECK(llama.bos_token_id == 1);
  CHECK(llama.eos_token_ids == std::vector<std::int32_t>{2});
  CHECK(!llama.tie_word_embeddings);

  const auto mistral = ModelConfig::parse(R"({"model_type":"mistral"})");
  CHECK(mistral.kv_heads == 8);
  CHECK(mistral.intermediate_size == 14336);
  CHECK(mistral.attention_window(0) == 4096);
  CHECK(ModelConfig::parse(R"({"model_type":"mistral","sliding_window":null})").attention_window(0) == 0);
  CHECK(ModelConfig::parse(R"({"model_type":"mistral","num_key_value_heads":null})").kv_heads == 32);

  const auto qwen2 = ModelConfig::parse(R"({"model_type":"qwen2","sliding_window":100,"use_sliding_window":false})");
  CHECK(qwen2.qkv_bias);
  CHECK(!qwen2.output_bias);
  CHECK(qwen2.attention_window(31) == 0);
  CHECK(!qwen2.bos_token_id);
  const auto sliding = ModelConfig::parse(
      R"({"model_type":"qwen2","sliding_window":100,"use_sliding_window":true,"max_window_layers":30,"num_hidden_layers":32})");
  CHECK(sliding.attention_window(29) == 0);
  CHECK(sliding.attention_window(30) == 100);

  const auto qwen3 = ModelConfig::parse(
      R"({"model_type":"qwen3","hidden_size":1024,"num_attention_heads":16,"num_key_value_heads":8})");
  CHECK(qwen3.qk_norm);
  CHECK(!qwen3.qkv_bias);
  CHECK(qwen3.head_dim == 128);

  const auto bert =
      ModelConfig::parse(R"({"model_type":"bert","hidden_size":384,"num_hidden_layers":6,"intermediate_size":1536})");
  CHECK(bert.heads == 12);
  CHECK(bert.head_dim == 32);
  CHECK(bert.kv_heads == 12);
  CHECK(bert.hidden_act == Activation::gelu);
  CHECK(bert.norm_eps == 1e-12f);
  CHECK(bert.type_vocab_size == 2);
  CHECK(!bert.is_decoder());
}

TEST_CASE("The configs of Gemma, Qwen3-MoE, Phi-3, GPT-2 and Nomic say what their blocks have") {
  const auto gemma2 = ModelConfig::parse(
      R"({"model_type":"gemma2","hidden_act":"gelu","query_pre_attn_scalar":144,"sliding_window":4096})");
  CHECK(gemma2.hidden_act == Activation::gelu_tanh);
  CHECK(gemma2.attention_scale == 1.0f / 12);
  CHECK(gemma2.embedding_scale == 48);
  CHECK(gemma2.attention_cap == 50);
  CHECK(gemma2.logit_cap == 30);
  CHECK(gemma2.post_norms);
  CHECK(gemma2.norm_adds_one);
  CHECK(!gemma2.qk_norm);
  CHECK(gemma2.tie_word_embeddings);
  CHECK(gemma2.attention_window(0) == 4096);
  CHECK(gemma2.attention_window(1) == 0);
  CHECK(gemma2.eos_token_ids == std::vector<std::int32_t>{1});

  const auto gemma3 =
      ModelConfig::parse(R"({"model_type":"gemma3_text","attn_logit_softcapping":null,"final_logit_softcapping":null,
    "head_dim":256,"hidden_size":1152,"num_attention_heads":4,"num_key_value_heads":1,"num_hidden_layers":26,"sliding_window":512,
    "rope_local_base_freq":10000,"rope_theta":1000000,"rope_scaling":{"rope_type":"linear","factor":8.0},"sliding_window_pattern":6})");
  CHECK(gemma3.attention_scale == 1.0f / 16);
  CHECK(gemma3.attention_cap == 0);
  CHECK(gemma3.logit_cap == 0);
  CHECK(gemma3.qk_norm);
  CHECK(gemma3.rope_theta == 1000000);
  CHECK(gemma3.rope_factor == 8);
  CHECK(gemma3.local_rope_theta == 10000.0);
  CHECK(gemma3.attention_window(4) == 512);
  CHECK(gemma3.attention_window(5) == 0);
  CHECK(gemma3.attention_window(25) == 512);

  const auto moe = ModelConfig::parse(R"({"model_type":"qwen3_moe","head_dim":128,"hidden_size":2048,"num_experts":128,
    "num_experts_per_tok":8,"moe_intermediate_size":768,"norm_topk_prob":true,"decoder_sparse_step":1,"mlp_only_layers":[]})");
  REQUIRE(moe.experts);
  CHECK(moe.experts->count == 128);
  CHECK(moe.experts->used == 8);
  CHECK(moe.experts->intermediate_size == 768);
  CHECK(moe.experts->normalized);
  CHECK(moe.qk_norm);

  const auto phi3 = ModelConfig::parse(
      R"({"model_type":"phi3","hidden_size":64,"num_attention_heads":2,"max_position_embeddings":131072,
    "original_max_position_embeddings":4096,"partial_rotary_factor":0.25,"sliding_window":262144,
    "rope_scaling":{"type":"longrope","short_factor":[1,1,1,2],"long_factor":[1,2,3,4.5]}})");
  CHECK(phi3.rotary_dim == 8);
  CHECK(phi3.attention_window(0) == 262144);
  REQUIRE(phi3.long_rope);
  CHECK(phi3.long_rope->long_divisors == std::vector<float>{1, 2, 3, 4.5f});
  CHECK(phi3.long_rope->original_max_position_embeddings == 4096);
  CHECK(phi3.long_rope->magnitude == Approx(1.1902380714238083));  // sqrt(1 + ln 32 / ln 4096)
  CHECK(ModelConfig::parse(R"({"model_type":"phi3"})").attention_window(0) == 0);

  const auto gpt2 = ModelConfig::parse(
      R"({"model_type":"gpt2","activation_function":"gelu_new","n_ctx":1024,"n_embd":1024,"n_head":16,
    "n_layer":24,"n_positions":1024,"n_inner":null,"layer_norm_epsilon":1e-05,"vocab_size":50257})");
  CHECK(gpt2.hidden_size == 1024);
  CHECK(gpt2.intermediate_size == 4096);
  CHECK(gpt2.layers == 24);
  CHECK(gpt2.kv_heads == 16);
  CHECK(gpt2.head_dim == 64);
  CHECK(gpt2.max_position_embeddings == 1024);
  CHECK(gpt2.hidden_act == Activation::gelu_tanh);
  CHECK(gpt2.norm == NormKind::layer);
  CHECK(gpt2.learned_positions);
  CHECK(!gpt2.gated_mlp);
  CHECK(gpt2.tie_word_embeddings);

  const auto nomic = ModelConfig::parse(
      R"({"model_type":"nomic_bert","activation_function":"swiglu","n_embd":768,"n_head":12,"n_inner":3072,
    "n_layer":12,"n_positions":2048,"rotary_emb_base":1000,"rotary_emb_fraction":1.0,"rotary_emb_interleaved":false,"prenorm":false,
    "qkv_proj_bias":false,"mlp_fc1_bias":false,"mlp_fc2_bias":false,"layer_norm_epsilon":1e-12,"type_vocab_size":2,"vocab_size":30528})");
  CHECK(!nomic.is_decoder());
  CHECK(nomic.gated_mlp);
  CHECK(nomic.rope_theta == 1000);
  CHECK(!nomic.learned_positions);
  CHECK(!nomic.qkv_bias);
  CHECK(nomic.hidden_act == Activation::silu);
}

TEST_CASE("The rope_parameters of transformers 5 are read") {
  const auto plain = ModelConfig::parse(
      R"({"model_type":"qwen3","dtype":"float16","rope_parameters":{"rope_theta":1000000,"rope_type":"default"}})");
  CHECK(plain.rope_theta == 1000000);
  CHECK(!plain.rope_scaling);
  CHECK(plain.dtype == DType::f16);
  const auto scaled =
      ModelConfig::parse(R"({"model_type":"llama","rope_parameters":{"rope_theta":5e5,"rope_type":"llama3",
    "factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}})");
  CHECK(scaled.rope_theta == 500000);
  CHECK(scaled.rope_scaling == Llama3RopeScaling{8, 1, 4, 8192});
  CHECK(!ModelConfig::parse(R"({"model_type":"llama","rope_scaling":null,"rope_theta":10000})").rope_scaling);
}

TEST_CASE("A config that cannot be run is one clear error") {
  struct Case {
    const char* json;
    const char* message;
    Fault fault;
  };
  const Case cases[] = {
      {"", "not valid JSON", Fault::bad_file},
      {"{", "not valid JSON", Fault::bad_file},
      {"[]", "must be a JSON object", Fault::bad_file},
      {"{}", "no field 'model_type'", Fault::bad_file},
      {R"({"model_type":7})", "must be a string", Fault::bad_file},
      {R"({"model_type":"mamba"})",
       "supported are llama, mistral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, phi3, gpt2, bert, nomic_bert",
       Fault::unsupported},
      {R"({"model_type":"llama","model_type":"llama"})", "twice", Fault::bad_file},
      {R"({"model_type":"llama","hidden_size":0})", "hidden_size is 0", Fault::bad_file},
      {R"({"model_type":"llama","hidden_size":-4096})", "hidden_size is -4096", Fault::bad_file},
      {R"({"model_type":"llama","hidden_size":4096.5})", "hidden_size is 4096.5", Fault::bad_file},
      {R"({"model_type":"llama","hidden_size":"4096"})", "hidden_size is '4096'", Fault::bad_file},
      {R"({"model_type":"llama","hidden_size":1e30})", "hidden_size is 1e+30", Fault::bad_file},
      {R"({"model_type":"llama","vocab_size":99999999999999})", "vocab_size", Fault::bad_file},
      {R"({"model_type":"llama","vocab_size":18446744073709551615})", "vocab_size", Fault::bad_file},
      {R"({"model_type":"llama","num_hidden_layers":1000000})", "num_hidden_layers", Fault::bad_file},
      {R"({"model_type":"llama","num_attention_heads":0})", "num_attention_heads is 0", Fault::bad_file},
      {R"({"model_type":"llama","num_key_value_heads":5})", "does not divide the 32 heads", Fault::bad_file},
      {R"({"model_type":"llama","num_key_value_heads":64})", "does not divide the 32 heads", Fault::bad_file},
      {R"({"model_type":"llama","num_attention_heads":31,"num_key_value_heads":31})", "not a multiple of the 31 heads",
       Fault::bad_file},
      {R"({"model_type":"llama","head_dim":63})", "even", Fault::bad_file},
      {R"({"model_type":"llama","hidden_act":"relu"})", "hidden_act 'relu'", Fault::unsupported},
      {R"({"model_type":"llama","rms_norm_eps":"small"})", "must be a number", Fault::bad_file},
      {R"({"model_type":"llama","rms_norm_eps":-1})", "rms_norm_eps is -1", Fault::bad_file},
      {R"({"model_type":"llama","rope_theta":0})", "rope_theta is 0", Fault::bad_file},
      {R"({"model_type":"llama","rope_scaling":{"type":"linear"}})", "no field 'factor'", Fault::bad_file},
      {R"({"model_type":"llama","rope_scaling":{"rope_type":"yarn","factor":2}})",
       "'yarn' is not supported; supported are default, linear, llama3, longrope", Fault::unsupported},
      {R"({"model_type":"llama","rope_parameters":{"full_attention":{}}})", "of gemma3_text only", Fault::unsupported},
      {R"({"model_type":"gemma3_text","rope_parameters":{"other_attention":{}}})", "'other_attention'",
       Fault::unsupported},
      {R"({"model_type":"gemma3_text","rope_parameters":{"sliding_attention":{"rope_type":"linear"}}})",
       "supported is default", Fault::unsupported},
      {R"({"model_type":"gemma3_text","sliding_window_pattern":0})", "sliding_window_pattern is 0", Fault::bad_file},
      {R"({"model_type":"gemma2","query_pre_attn_scalar":0})", "query_pre_attn_scalar is 0", Fault::bad_file},
      {R"({"model_type":"gemma2","attn_logit_softcapping":-1})", "attn_logit_softcapping is -1", Fault::bad_file},
      {R"({"model_type":"phi3","partial_rotary_factor":0.01})", "rotates 0 features", Fault::bad_file},
      {R"({"model_type":"phi3","rope_scaling":{"type":"longrope","short_factor":[1],"long_factor":[1]}})", "ask for 48",
       Fault::bad_file},
      {R"({"model_type":"phi3","hidden_size":128,"rope_scaling":{"type":"longrope","short_factor":[1,0],"long_factor":[1,1]}})",
       "the element 0", Fault::bad_file},
      {R"({"model_type":"qwen3_moe","num_experts":4,"num_experts_per_tok":5})", "num_experts_per_tok is 5",
       Fault::bad_file},
      {R"({"model_type":"qwen3_moe","num_experts":100000})", "num_experts is 100000", Fault::bad_file},
      {R"({"model_type":"qwen3_moe","mlp_only_layers":[0]})", "mlp_only_layers", Fault::unsupported},
      {R"({"model_type":"gpt2","scale_attn_by_inverse_layer_idx":true})", "scale_attn_by_inverse_layer_idx",
       Fault::unsupported},
      {R"({"model_type":"gpt2","n_embd":100,"n_head":12})", "not a multiple of the 12 heads", Fault::bad_file},
      {R"({"model_type":"nomic_bert","qkv_proj_bias":true})", "qkv_proj_bias", Fault::unsupported},
      {R"({"model_type":"llama","rope_scaling":{"rope_type":"dynamic","factor":2}})", "'dynamic'", Fault::unsupported},
      {R"({"model_type":"llama","rope_scaling":{"rope_type":"llama3"}})", "no field 'factor'", Fault::bad_file},
      {R"({"model_type":"llama","rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,"original_max_position_embeddings":8192}})",
       "must be greater", Fault::bad_file},
      {R"({"model_type":"llama","rope_scaling":3})", "must be a JSON object", Fault::bad_file},
      {R"({"model_type":"llama","partial_rotary_factor":0.5})", "partial_rotary_factor", Fault::unsupported},
      {R"({"model_type":"llama","tie_word_embeddings":"yes"})", "must be true or false", Fault::bad_file},
      {R"({"model_type":"llama","eos_token_id":4294967296})", "eos_token_id", Fault::bad_file},
      {R"({"model_type":"llama","eos_token_id":["2"]})", "eos_token_id", Fault::bad_file},
      {R"({"model_type":"mistral","sliding_window":0})", "sliding_window", Fault::bad_file},
      {R"({"model_type":"qwen2","use_sliding_window":true,"layer_types":["full_attention"]})",
       "1 entries for 32 layers", Fault::bad_file},
      {R"({"model_type":"bert","position_embedding_type":"relative_key"})", "relative_key", Fault::unsupported},
  };
  for (const auto& hostile : cases) {
    INFO(hostile.json);
    try {
      ModelConfig::parse(hostile.json, "somewhere/config.json");
      FAIL_CHECK("was accepted");
    } catch (const Error& error) {
      CHECK_THAT(error.what(), ContainsSubstring(hostile.message));
      CHECK_THAT(error.what(), ContainsSubstring("somewhere/config.json"));
      CHECK(error.fault() == hostile.fault);
    }
  }
  std::string deep = R"({"model_type":"llama","x":)";
  for (int i = 0; i < 300000; ++i) deep += '[';
  CHECK_THROWS_WITH(ModelConfig::parse(deep), ContainsSubstring("nested deeper"));
}

TEST_CASE("A folder without a config says so") {
  const TempFolder folder;
  CHECK_THROWS_WITH(ModelConfig::load(folder.path()),
                    ContainsSubstring("no config.json") && ContainsSubstring(folder.path().string()));
  CHECK_THROWS_WITH(ModelConfig::load(folder.path() / "absent"), ContainsSubstring("there is no folder"));
}

TEST_CASE("generation_config.json and the files of sentence-transformers complete the config") {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type":"qwen2","eos_token_id":151643})");
  folder.write("generation_config.json", R"({"eos_token_id":[151645,151643],"pad_token_id":151643})");
  const auto qwen = ModelConfig::load(folder.path());
  CHECK(qwen.eos_token_ids == std::vector<std::int32_t>{151645, 151643});
  CHECK(qwen.pad_token_id == 151643);

  const TempFolder encoder;
  encoder.write("config.json", R"({"model_type":"bert","hidden_size":384,"max_position_embeddings":512})");
  CHECK(!ModelConfig::load(encoder.path()).pooling);
  encoder.write("modules.json", R"([{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
    {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
    {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}])");
  encoder.write("1_Pooling/config.json",
                R"({"word_embedding_dimension":384,"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true})");
  encoder.write("sentence_bert_config.json", R"({"max_seq_length":256,"do_lower_case":false})");
  const auto bert = ModelConfig::load(encoder.path());
  CHECK(bert.pooling == Pooling::mean);
  CHECK(bert.normalize_embedding);
  CHECK(bert.max_sequence == 256);

  encoder.write("1_Pooling/config.json", R"({"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true})");
  CHECK_THROWS_WITH(ModelConfig::load(encoder.path()), ContainsSubstring("cls_token + mean_tokens"));
  encoder.write("modules.json", R"([{"path":"../x","type":"sentence_transformers.models.Pooling"}])");
  CHECK_THROWS_WITH(ModelConfig::load(encoder.path()), ContainsSubstring("'../x'"));
  encoder.write("modules.json", R"([{"path":"2_Dense","type":"sentence_transformers.models.Dense"}])");
  CHECK_THROWS_WITH(ModelConfig::load(encoder.path()), ContainsSubstring("Dense"));
}
