/*
 * One log line an event, on standard error: time, level, rank, words. Any thread. Never holds text
 * of a prompt or an answer at any level.
 */
#ifndef WITAN_BASE_LOG_H
#define WITAN_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below `level` are dropped. Default LOG_INFO. */
void log_set_level(enum log_level level);

/* The calling thread's rank, shown in its lines and in failed CHECKs; -1 (the default) is hidden.
 * Thread-local, since the local transport runs ranks as threads of one process. */
void log_set_rank(int rank);
int log_rank(void);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
