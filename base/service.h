/*
 * What a service manager is told of this process: sd_notify(3)'s datagrams to $NOTIFY_SOCKET.
 * Without that variable nothing is done, and a manager that does not listen is no error: it is
 * told, not asked. From one thread.
 */
#ifndef WITAN_BASE_SERVICE_H
#define WITAN_BASE_SERVICE_H

/* Takes $NOTIFY_SOCKET out of the environment, so that processes started later do not speak for
 * this one. Without a call to it service_tell does nothing. */
void service_open(void);

/* Lines as sd_notify(3) has them, "READY=1\nSTATUS=...": at most 1023 bytes, what is longer is cut.
 * Text from elsewhere must hold no line break. */
void service_tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
