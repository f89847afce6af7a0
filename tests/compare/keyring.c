/* Prints the serial of the session keyring, for a root filesystem without keyctl(1); minus the errno where it is refused. */
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    long serial = syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -3 /* KEY_SPEC_SESSION_KEYRING */, 0);
    printf("%ld\n", serial < 0 ? (long)-errno : serial);
    return 0;
}
