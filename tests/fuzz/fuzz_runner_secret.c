/* A secret's object, which any client of the store may have written: only what was sealed with the
 * key opens. The first two bytes of the input say where and how a sealed value is changed. */
#include "runner/secrets/secret_box.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[SECRET_KEY_BYTES] = {1, 2, 3};
    g_autofree uint8_t *box = NULL;
    size_t box_size;
    char *value;

    value = secret_unseal(key, "demo", "A", data, size, NULL);
    g_assert(!value);
    box = secret_seal(key, "demo", "A", "value", &box_size, NULL);
    value = secret_unseal(key, "demo", "A", box, box_size, NULL);
    g_assert(value && strcmp(value, "value") == 0);
    secret_free(value);
    if (size >= 2 && data[1]) {
        box[data[0] % box_size] ^= data[1];
        value = secret_unseal(key, "demo", "A", box, box_size, NULL);
        g_assert(!value);
    }
    return 0;
}
