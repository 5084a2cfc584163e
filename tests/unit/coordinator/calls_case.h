/*
 * What models write where they may call tools, and what is told of it: content as it is, a call as
 * {{NAME|ARGUMENTS}}, one that broke off as {{NAME|ARGUMENTS~~.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_CALLS_CASE_H
#define WITAN_TESTS_UNIT_COORDINATOR_CALLS_CASE_H

#include "coordinator/core.h"

/* Without a thought. */
struct calls_case {
    const char *name, *text, *told;
};

/* With one that may come first. */
struct split_case {
    const char *name;
    enum call_format format;
    bool split;  /* thought and answer are told apart, */
    bool inside; /* and the text begins in the thought */
    const char *text, *thought, *told;
};

#define CALL(json) "<tool_call>\n" json "\n</tool_call>"
#define FUNCTION(name, parameters)                                                                 \
    "<tool_call>\n<function=" name ">\n" parameters "</function>\n</tool_call>"
#define PARAMETER(key, value) "<parameter=" key ">\n" value "\n</parameter>\n"

#define TIMES_4(s) s s s s
#define TIMES_16(s) TIMES_4(s) TIMES_4(s) TIMES_4(s) TIMES_4(s)
#define SPACES_64 TIMES_16("    ")             /* CALLS_MAX_SPACE */
#define LONG_NAME TIMES_16("a_name_of_many__") /* CALLS_MAX_NAME bytes */

/* As many arrays in arguments as JSON_SCAN_MAX_DEPTH leaves, which counts the call and them too. */
#define DEEP_OPEN TIMES_16("[[[[[[[") "[[[[[[[[[[[[[["
#define DEEP_CLOSE TIMES_16("]]]]]]]") "]]]]]]]]]]]]]]"

#endif
