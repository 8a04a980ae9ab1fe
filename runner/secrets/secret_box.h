/* Sealing a secret's value, so that the store keeps what only holders of the key can read.
 *
 * shape:  one byte of version, 12 of nonce (random), the ciphertext, 16 of tag: AES-256-GCM, with
 *         the repo's and the secret's name as associated data, so that one secret cannot be put in
 *         another's place.
 * key:    32 bytes as 64 hexadecimal digits: DSTACK_SECRETS_KEY in the environment, else
 *         $DSTACK_HOME/secrets.key, which nobody else may read.
 * errors: ENOENT: no key here; EACCES: others may read the file; EINVAL: it is no key; EBADMSG: not
 *         sealed with this key, or changed.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define SECRETS_KEY_VARIABLE "DSTACK_SECRETS_KEY"

enum { SECRET_KEY_BYTES = 32 };

/* MAKE: a new key is made and saved when there is none. */
bool secret_key_load(uint8_t key[SECRET_KEY_BYTES], bool make, GError **error);
void secret_key_forget(uint8_t key[SECRET_KEY_BYTES]);

/* Of VALUE; *SIZE bytes, the caller's. */
uint8_t *secret_seal(const uint8_t key[SECRET_KEY_BYTES], const char *repo, const char *name,
                     const char *value, size_t *size, GError **error);

/* The value; secret_free it. */
char *secret_unseal(const uint8_t key[SECRET_KEY_BYTES], const char *repo, const char *name,
                    const void *data, size_t size, GError **error);

/* Overwrites TEXT (may be NULL) before it is freed. */
void secret_free(char *text);
