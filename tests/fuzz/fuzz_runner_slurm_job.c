/* What scontrol says of a job. */
#include "runner/engine/slurm_job.h"
#include <stddef.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    struct engine_answer answer = {.state = ENGINE_UNKNOWN};
    struct slurm_job job;

    slurm_job_parse(text, &job);
    slurm_job_judge(&job, &answer);
    g_free(answer.reason);
    slurm_job_clear(&job);
    return 0;
}
