/* The sources of this build. */
#include <fanwire/source.h>
#include <stddef.h>

extern const struct fw_source_class source_memory, source_stdin, source_postgres, source_sqlite;

const struct fw_source_class *const fw_sources[] = { &source_postgres, &source_sqlite,
                                                     &source_memory, &source_stdin, NULL };
