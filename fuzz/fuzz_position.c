/* Positions and `since`: any text is refused, or read within its bounds. */
#include "fuzz.h"
#include "position.h"

#include <errno.h>
#include <fanwire.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct since since;
    char *text = copy_of(data, size, 0);
    int r = since_parse(text, size, &since);
    free(text);
    require(r == 0 || r == -EINVAL);
    if (r == 0)
        require(size > 0 && size <= FW_POSITION_MAX);
    if (r == 0 && since.kind == SINCE_POSITION)
        require(since.position.kind <= POSITION_FOREIGN);
    return 0;
}
