/* Thoughts, and calls behind them: see calls_cases.h. */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_CALLS_CASES_THOUGHT_H
#define WITAN_TESTS_UNIT_COORDINATOR_CALLS_CASES_THOUGHT_H

#include "tests/unit/coordinator/calls_case.h"

/* The thought before, as a prompt that ends inside of one has it: {{}} of the rest. */
static const struct thought_case {
    const char *name;
    bool inside;
    const char *text, *thought, *told;
} thought_cases[] = {
    {"vllm_17349: thinking off, all is content", false, "It is 4.", "", "It is 4."},
    {"vllm_22507: the prompt opens the thought", true, "Two and two.\n</think>\n\nIt is 4.",
     "Two and two.", "It is 4."},
    {"vllm_35230: no thought where thinking is off, calls are", false,
     CALL("{\"name\":\"f\",\"arguments\":{}}"), "", "{{f|{}}}"},
    {"vllm_19839: the tag in pieces does not leak", true, "a </thin </think>b", "a </thin ", "b"},
    {"qwen_1297: a thought of its own, then a call", false,
     "<think>\nI call f.\n</think>\n\n" CALL("{\"name\":\"f\",\"arguments\":{\"a\":1}}"),
     "I call f.", "{{f|{\"a\":1}}}"},
    {"qwen_1755: cut inside the thought, all is thought", true, "So I will ca", "So I will ca", ""},
    {"qwen_1459: a call in a thought is thought", true,
     "Maybe " CALL("{\"name\":\"f\",\"arguments\":{}}") "?\n</think>\n\nNo.",
     "Maybe " CALL("{\"name\":\"f\",\"arguments\":{}}") "?", "No."},
    {"a call behind a thought", true, "hm</think><tool_call>{\"name\":\"f\"}</tool_call>", "hm",
     "{{f|{}}}"},
    {"vllm_22507: nothing but a thought that the prompt opened", true, "Hello! The user",
     "Hello! The user", ""},
    {"vllm_17349: an empty thought is none", false, "<think>\n\n</think>\n\nIt is 4.", "",
     "It is 4."},
    {"vllm_35230: content that begins with white space is content", false, "\n\nIt is 4.", "",
     "\n\nIt is 4."},
    {"vllm_19839: newlines before the tag in pieces", true, "a\n\n\n</think>\n\n\nb", "a", "b"},
    {"llama_21118: a call before the thought ends is thought", true,
     "I call f.\n" CALL("{\"name\":\"f\",\"arguments\":{}}"),
     "I call f.\n" CALL("{\"name\":\"f\",\"arguments\":{}}"), ""},
    {"vllm_39056: a call in the thought, another behind it", true,
     CALL("{\"name\":\"f\",\"arguments\":{}}") "\n</think>\n" CALL(
         "{\"name\":\"g\",\"arguments\":{}}"),
     CALL("{\"name\":\"f\",\"arguments\":{}}"), "{{g|{}}}"},
    {"a thought opened in the thought", true, "a <think> b</think> c</think> d", "a <think> b",
     " c</think> d"},
    {"a second thought is content", false, "<think>a</think>b<think>c</think>d", "a",
     "b<think>c</think>d"},
    {"a thought behind content is content", false, "Well. <think>a</think>b", "",
     "Well. <think>a</think>b"},
    {"a thought between calls is content", false,
     CALL("{\"name\":\"f\",\"arguments\":{}}") "\n<think>\nx\n</think>\n" CALL(
         "{\"name\":\"g\",\"arguments\":{}}"),
     "", "{{f|{}}}\n<think>\nx\n</think>{{g|{}}}"},
    {"the tag is opened again by the model", true, "<think>\nHm.\n</think>\n\nYes.", "<think>\nHm.",
     "Yes."},
    {"the tag closes what was never opened", false, "Hm.\n</think>\n\nYes.", "",
     "Hm.\n</think>\n\nYes."},
    {"the tag in capitals", true, "a</THINK>b", "a</THINK>b", ""},
    {"a tag cut at the end", true, "a\n</think", "a\n</think", ""},
    {"the opening tag cut", false, " <thin", "", " <thin"},
    {"almost the opening tag", false, "<thinking>a</thinking>b", "", "<thinking>a</thinking>b"},
    {"windows newlines beside the tags", false, "<think>\r\na\r\n</think>\r\n\r\nb", "a", "b"},
    {"spaces beside the tags stay", true, " a \n</think> b", " a ", " b"},
    {"not ASCII on both sides", true, "思考 \xf0\x9f\xa4\x94\n</think>\n\n答案 \xe2\x82\xac",
     "思考 \xf0\x9f\xa4\x94", "答案 \xe2\x82\xac"},
    {"a call that broke off behind a thought", true,
     "x</think>\n\n<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":", "x", "{{f|{\"a\":~~"},
    {"the tag in an argument is not the thought's", false,
     CALL("{\"name\":\"f\",\"arguments\":{\"a\":\"</think>\"}}"), "", "{{f|{\"a\":\"</think>\"}}}"},
};

#endif
