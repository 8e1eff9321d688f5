/* Runs a fuzz target over the files of the folders it is given: the corpus as an ordinary test,
 * with any compiler. */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>

static size_t run_file(const char *path)
{
    static uint8_t content[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t size = fread(content, 1, sizeof(content), file);
    (void)fclose(file);
    uint8_t *data = copy_of(content, size, 0);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static size_t run_folder(const char *path)
{
    size_t n = 0;
    char file[PATH_MAX];
    DIR *dir = opendir(path);
    if (!dir) {
        perror(path);
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        int len = snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        require(len > 0 && (size_t)len < sizeof(file));
        n += run_file(file);
    }
    (void)closedir(dir);
    return n;
}

int main(int argc, char **argv)
{
    size_t n = 0;
    for (int i = 1; i < argc; i++)
        n += run_folder(argv[i]);
    printf("%zu inputs\n", n);
    return n ? 0 : 1;
}
