/* Whether this machine has what a job asks for. */
#include "config/error.h"
#include "runner/submit/machine_has.h"
#include <criterion/criterion.h>
#include <string.h>

static void lacks(struct resources resources, const char *part)
{
    g_autoptr(GError) error = NULL;

    cr_assert_not(machine_has(&resources, false, &error));
    cr_assert(error_is(error, ENOSPC));
    cr_assert_not_null(strstr(error->message, part), "%s", error->message);
}

Test(machine, says_what_it_has_too_little_of)
{
    struct resources little = {.cpu = 1, .memory_bytes = 1 << 20, .shm_bytes = 1};

    g_setenv("PATH", "/nowhere", TRUE); /* no nvidia-smi */
    cr_assert(machine_has(&little, false, NULL));
    lacks((struct resources){.cpu = 60000}, "60000 CPUs; this machine has ");
    lacks((struct resources){.memory_bytes = 1ULL << 60}, "1024.0PiB of memory");
    lacks((struct resources){.shm_bytes = 1ULL << 60}, "/dev/shm has ");
    lacks((struct resources){.gpu = 2, .gpu_name = "A100"}, "2 GPUs A100");
}

Test(machine, in_a_container_shared_memory_is_its_own)
{
    struct resources much = {.shm_bytes = 1ULL << 60};

    cr_assert(machine_has(&much, true, NULL));
}

Test(machine, counts_gpus_by_name_and_memory)
{
    static const char list[] = "NVIDIA A100-SXM4-40GB, 40960\nNVIDIA A100-SXM4-40GB, 40960\n"
                               "Tesla V100-SXM2-16GB, 16160\n";

    cr_assert_eq(gpus_count(list, NULL, 0), 3);
    cr_assert_eq(gpus_count(list, "a100", 0), 2);
    cr_assert_eq(gpus_count(list, "nvidia A100", 40ULL << 30), 2);
    cr_assert_eq(gpus_count(list, "V100", 17ULL << 30), 0);
    cr_assert_eq(gpus_count("", NULL, 0), 0);
}

Test(machine, reads_meminfo)
{
    uint64_t available = 0, total = 0;

    cr_assert(
        meminfo_parse("MemTotal:  2 kB\nMemFree: 1 kB\nMemAvailable: 1 kB\n", &available, &total));
    cr_assert_eq(total, 2048);
    cr_assert_eq(available, 1024);
    cr_assert_not(meminfo_parse("MemTotal: 2 kB\n", &available, &total));
}
