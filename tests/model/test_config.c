/* config.json: the spellings that are understood, and the mistakes that are named. */
#include "test.h"

#include "core/json.h"
#include "model/config.h"

static bg_error err;

static bg_status parse(const char *text, bg_config *config)
{
    json_t *json;
    bg_status status = bg_json_parse(text, strlen(text), "config.json", &json, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return status;
    status = bg_config_parse(json, "config.json", config, &err);
    json_decref(json);
    return status;
}

#define GPT2                                                                                       \
    "\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":40,\"n_layer\":2,\"n_head\":5,"            \
    "\"vocab_size\":97,\"n_positions\":24"

static void test_good(void)
{
    bg_config c;
    CHECK(parse("{" GPT2 ",\"eos_token_id\":[3,4],\"n_inner\":null}", &c) == BG_OK, "%s",
          err.message);
    CHECK(c.hidden_size == 40 && c.head_dim == 8 && c.intermediate_size == 160, "derived sizes");
    CHECK(c.n_end_tokens == 2 && c.end_token_ids[1] == 4, "end tokens");
    CHECK(c.activation == BG_ACTIVATION_GELU_NEW && c.norm_eps == 1e-5, "defaults");
    CHECK(parse("{\"model_type\":\"distilbert\",\"dim\":12,\"n_layers\":1,\"n_heads\":3,"
                "\"vocab_size\":9,\"max_position_embeddings\":8,\"hidden_dim\":20,"
                "\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}",
                &c) == BG_OK,
          "%s", err.message);
    CHECK(c.num_labels == 3 && c.intermediate_size == 20 && c.norm_eps == 1e-12, "distilbert");
}

#define LLAMA                                                                                      \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"num_hidden_layers\":3,"         \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":96,"                \
    "\"vocab_size\":99,\"max_position_embeddings\":128"

static void test_families(void)
{
    bg_config c;
    CHECK(parse("{" LLAMA ",\"rope_theta\":5e5,\"eos_token_id\":[5,6,7]}", &c) == BG_OK, "%s",
          err.message);
    CHECK(c.head_dim == 16 && c.rope.dim == 16 && c.rope.theta == 5e5 && !c.tie_word_embeddings &&
              c.n_end_tokens == 3 && c.sliding_window == 0,
          "llama");
    CHECK(parse("{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4,"
                "\"rope_theta\":100},\"tie_word_embeddings\":true}",
                &c) == BG_OK,
          "%s", err.message);
    CHECK(parse("{" LLAMA ",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"linear\","
                "\"factor\":2,\"attention_factor\":1.5}}",
                &c) == BG_OK &&
              c.rope.dim == 16 && c.rope.attention_factor == 1,
          "Llama knows neither key");
    CHECK(parse("{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4,"
                "\"rope_theta\":100},\"tie_word_embeddings\":true}",
                &c) == BG_OK,
          "%s", err.message);
    CHECK(c.rope.kind == BG_ROPE_LINEAR && c.rope.factor == 4 && c.rope.theta == 100,
          "new spelling");
    CHECK(parse("{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":64,"
                "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"vocab_size\":99,"
                "\"max_position_embeddings\":128,\"sliding_window\":16,"
                "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"sliding_attention\"]}",
                &c) == BG_OK,
          "%s", err.message);
    CHECK(!bg_config_slides(&c, 0) && bg_config_slides(&c, 1) && bg_config_slides(&c, 2),
          "windows");
    CHECK(parse("{\"architectures\":[\"T5ForConditionalGeneration\"],\"d_model\":32,\"d_kv\":8,"
                "\"d_ff\":64,\"num_layers\":2,\"num_decoder_layers\":3,\"num_heads\":2,"
                "\"vocab_size\":50,\"feed_forward_proj\":\"gated-gelu\",\"forced_bos_token_id\":7}",
                &c) == BG_OK,
          "%s", err.message);
    CHECK(c.num_hidden_layers == 3 && c.encoder->num_hidden_layers == 2 && c.holds[BG_IF_GATED] &&
              c.activation == BG_ACTIVATION_GELU_NEW && c.n_forced == 1 && c.forced_ids[0] == 7,
          "t5");
    CHECK(c.decoder_start_token_id == 0, "texts begin with the padding token");
    CHECK(fabs(c.head_scale - 1 / sqrt(32)) < 1e-12, "a tied head is scaled: %g", c.head_scale);
    bg_config_free(&c);
}

/* What only opt-350m has is ignored elsewhere: rows would not be as wide as their embeddings. */
static void test_embedding_size(void)
{
    bg_config c;
    CHECK(parse("{" GPT2 ",\"embedding_size\":8}", &c) == BG_OK && c.embedding_size == 40, "gpt2");
    CHECK(
        parse("{\"architectures\":[\"OPTForCausalLM\"],\"hidden_size\":40,\"num_hidden_layers\":1,"
              "\"num_attention_heads\":4,\"vocab_size\":9,\"max_position_embeddings\":8,"
              "\"word_embed_proj_dim\":24,\"do_layer_norm_before\":false}",
              &c) == BG_OK &&
            c.embedding_size == 24 && c.holds[BG_IF_PROJECTED] && c.block == BG_BLOCK_POST_NORM,
        "opt");
}

static void test_bad(void)
{
    static const struct {
        const char *text, *says;
        bg_status status;
    } cases[] = {
        {"{}", "architecture", BG_ERR_UNSUPPORTED},
        {"{\"architectures\":[\"MambaForCausalLM\"]}", "MambaForCausalLM", BG_ERR_UNSUPPORTED},
        {"{\"architectures\":[7],\"model_type\":3}", "model_type", BG_ERR_FORMAT},
        {"[]", "object", BG_ERR_FORMAT},
        {"{\"architectures\":[\"GPT2LMHeadModel\"]}", "n_embd", BG_ERR_FORMAT},
        {"{" GPT2 ",\"n_embd \":1,\"activation_function\":\"mish\"}", "mish", BG_ERR_UNSUPPORTED},
        {"{" GPT2 ",\"layer_norm_epsilon\":-1}", "epsilon", BG_ERR_FORMAT},
        {"{" GPT2 ",\"layer_norm_epsilon\":\"x\"}", "layer_norm_epsilon", BG_ERR_FORMAT},
        {"{" GPT2 ",\"n_inner\":-5}", "n_inner", BG_ERR_FORMAT},
        {"{" GPT2 ",\"n_inner\":1e300}", "n_inner", BG_ERR_FORMAT},
        {"{" GPT2 ",\"num_key_value_heads\":2}", "key-value heads", BG_ERR_FORMAT},
        {"{" GPT2 ",\"head_dim\":131072}", "attention heads", BG_ERR_FORMAT},
        {"{" GPT2 ",\"eos_token_id\":[\"a\"]}", "eos_token_id", BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"longrope\"}}", "longrope", BG_ERR_UNSUPPORTED},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"llama3\"}}", "factor", BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_theta\":-1}", "rotary", BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_theta\":\"x\"}", "rope_theta", BG_ERR_FORMAT},
        {"{\"architectures\":[\"PhiForCausalLM\"],\"hidden_size\":64,\"num_hidden_layers\":1,"
         "\"num_attention_heads\":4,\"vocab_size\":9,\"max_position_embeddings\":8,"
         "\"partial_rotary_factor\":0.05}",
         "rotary", BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_scaling\":\"linear\"}", "object", BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_scaling\":{\"factor\":2}}", "rope_type", BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}}", "low_freq_factor",
         BG_ERR_FORMAT},
        {"{" LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":5e5}}}",
         "full_attention", BG_ERR_UNSUPPORTED},
        {"{" LLAMA ",\"layer_types\":[\"full_attention\"]}", "layer_types", BG_ERR_FORMAT},
        {"{" LLAMA ",\"quantization_config\":{\"quant_method\":\"gptq\"}}", "quantized already",
         BG_ERR_UNSUPPORTED},
        {"{\"architectures\":[\"PaliGemmaForConditionalGeneration\"]}", "text_config",
         BG_ERR_FORMAT},
        {"{\"architectures\":[\"T5ForConditionalGeneration\"],\"d_model\":32,\"d_kv\":8,"
         "\"num_layers\":2,\"num_heads\":2,\"vocab_size\":50,\"relative_attention_num_buckets\":2}",
         "buckets", BG_ERR_FORMAT},
        {"{" GPT2 ",\"tie_word_embeddings\":\"yes\"}", "tie_word_embeddings", BG_ERR_FORMAT},
        {"{\"model_type\":\"gpt2\",\"n_embd\":41,\"n_layer\":2,\"n_head\":5,\"vocab_size\":9,"
         "\"n_positions\":8}",
         "divide", BG_ERR_FORMAT},
        {"{\"model_type\":\"gpt2\",\"n_embd\":40,\"n_layer\":0,\"n_head\":5,\"vocab_size\":9,"
         "\"n_positions\":8}",
         "n_layer", BG_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_config c;
        CHECK(parse(cases[i].text, &c) == cases[i].status, "%s: %s", cases[i].text, err.message);
        CHECK(strstr(err.message, cases[i].says) && strstr(err.message, "config.json"), "%s: %s",
              cases[i].text, err.message);
        bg_config_free(&c);
    }
}

int main(void)
{
    RUN(test_good);
    RUN(test_families);
    RUN(test_embedding_size);
    RUN(test_bad);
    return test_finish();
}
