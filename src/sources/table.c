/* The sources of this build. */
#include <fanwire/source.h>
#include <stddef.h>

extern const struct fw_source_class source_memory, source_stdin, source_postgres;

const struct fw_source_class *const fw_sources[] = { &source_postgres, &source_memory,
                                                     &source_stdin, NULL };
