/* Names that nobody else has, and tokens that nobody guesses.
 *
 * source: getrandom(2): GLib's generators are a process's own state, which a fork has twice, and
 *         no secret.
 */
#pragma once

/* 32 hexadecimal digits; the caller's. */
char *random_id(void);
