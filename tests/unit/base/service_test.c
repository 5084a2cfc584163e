/* What a service manager is told, read at its socket. */
#include "base/service.h"
#include "tests/unit/unit.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A manager's socket under `name`, which begins with "@" where it is abstract. */
static int listen_at(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(a.sun_path, name, len);
    if (*name == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&a,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                     0);
    return fd;
}

static void expect_told(int fd, const char *expected)
{
    char text[4096];
    ssize_t n = recv(fd, text, sizeof text - 1, 0);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, expected);
}

static void tells_a_manager(const char *name)
{
    int fd = listen_at(name);
    setenv("NOTIFY_SOCKET", name, 1);
    service_open();
    assert_null(getenv("NOTIFY_SOCKET")); /* children do not speak for us */
    service_tell("READY=1\nSTATUS=serves %s", "lexicon");
    expect_told(fd, "READY=1\nSTATUS=serves lexicon");
    service_tell("STOPPING=1");
    expect_told(fd, "STOPPING=1");
    char big[3000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    service_tell("STATUS=%s", big);
    char got[4096];
    assert_int_equal(recv(fd, got, sizeof got, 0), 1023);
    close(fd);
    service_tell("STATUS=nobody listens"); /* no error, no signal */
}

static void a_path(void **state)
{
    (void)state;
    char dir[] = "/tmp/witan-service-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/notify", dir);
    tells_a_manager(path);
    unlink(path);
    rmdir(dir);
}

static void an_abstract_name(void **state)
{
    (void)state;
    char name[64];
    snprintf(name, sizeof name, "@witan-service-test-%d", (int)getpid());
    tells_a_manager(name);
}

/* What is no address is none: nothing is sent, and nothing breaks. */
static void no_address_is_nobody(void **state)
{
    (void)state;
    char big[300];
    memset(big, 'x', sizeof big - 1);
    big[0] = '/';
    big[sizeof big - 1] = '\0';
    const char *const bad[] = {"", "/", "@", "relative", "vsock:2:1234", big};
    unsetenv("NOTIFY_SOCKET");
    service_open();
    service_tell("READY=1");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("NOTIFY_SOCKET", bad[i], 1);
        service_open();
        assert_null(getenv("NOTIFY_SOCKET"));
        service_tell("READY=1");
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_path),
    cmocka_unit_test(an_abstract_name),
    cmocka_unit_test(no_address_is_nobody),
};

UNIT_MAIN(tests)
