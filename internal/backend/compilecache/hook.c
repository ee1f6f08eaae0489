//go:build cgo && linux

#define _GNU_SOURCE
#include "hook.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "_cgo_export.h"

typedef void *error_t_; // PJRT_Error*, null for success
typedef error_t_ (*call_t)(void *args);

// Places in the table of functions, in pointers from its start.
enum {
	at_error_destroy = 40 / 8,
	at_compile = 200 / 8,
	at_executable_destroy = 360 / 8,
	at_serialize = 432 / 8,
	at_get_executable = 448 / 8,
	at_deserialize_and_load = 488 / 8,
};

typedef struct {
	size_t struct_size;
	void *extension;
	char *code;
	size_t code_size;
	const char *format;
	size_t format_size;
} program_t;

typedef struct {
	size_t struct_size;
	void *extension;
	void *client;
	const program_t *program;
	const char *options;
	size_t options_size;
	void *executable; // out
} compile_args;

typedef struct {
	size_t struct_size;
	void *extension;
	void *loaded;
	void *executable; // out
} get_executable_args;

typedef struct {
	size_t struct_size;
	void *extension;
	void *executable;
	const char *bytes; // out
	size_t size;       // out
	void *owner;       // out
	void (*release)(void *owner); // out
} serialize_args;

typedef struct {
	size_t struct_size;
	void *extension;
	void *client;
	const char *bytes;
	size_t size;
	void *loaded; // out
	const char *options;
	size_t options_size;
} load_args;

typedef struct {
	size_t struct_size;
	void *extension;
	void *handle;
} destroy_args;

// One table for each plugin that a process loads.
enum { max_tables = 8 };
static struct {
	void **api;
	call_t compile;
} tables[max_tables];
static int n_tables;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void drop(void **api, error_t_ error) {
	destroy_args a = {sizeof a, NULL, error};
	((void (*)(void *))api[at_error_destroy])(&a);
}

// give_back returns what the compiler used and freed to the system: a program takes hundreds of megabytes to compile, and the C
// library would keep them for a process that may never need them again. Other libraries than glibc have no such function.
static void give_back(void) {
	int (*trim)(size_t) = (int (*)(size_t))dlsym(RTLD_DEFAULT, "malloc_trim");
	if (trim) trim(0);
}

static void keep(void **api, const compile_args *args) {
	get_executable_args get = {sizeof get, NULL, args->executable, NULL};
	error_t_ error = ((call_t)api[at_get_executable])(&get);
	if (error) {
		drop(api, error);
		return;
	}
	serialize_args ser = {0};
	ser.struct_size = sizeof ser;
	ser.executable = get.executable;
	error = ((call_t)api[at_serialize])(&ser);
	if (error) {
		drop(api, error);
	} else {
		mergekitCacheSave(api, args->program->code, args->program->code_size, (void *)args->options, args->options_size, (void *)ser.bytes, ser.size);
		if (ser.release) ser.release(ser.owner);
	}
	destroy_args del = {sizeof del, NULL, get.executable};
	error = ((call_t)api[at_executable_destroy])(&del);
	if (error) drop(api, error);
}

static error_t_ compile_through(int table, compile_args *args) {
	void **api = tables[table].api;
	size_t size = 0;
	void *stored = mergekitCacheLoad(api, args->program->code, args->program->code_size, (void *)args->options, args->options_size, &size);
	if (stored) {
		load_args load = {0};
		load.struct_size = sizeof load;
		load.client = args->client;
		load.bytes = stored;
		load.size = size;
		error_t_ error = ((call_t)api[at_deserialize_and_load])(&load);
		free(stored);
		if (!error) {
			args->executable = load.loaded;
			mergekitCacheCount(1);
			return NULL;
		}
		drop(api, error);
	}
	error_t_ error = tables[table].compile(args);
	if (!error) {
		mergekitCacheCount(0);
		keep(api, args);
		give_back();
	}
	return error;
}

#define ENTRY(n) \
	static error_t_ compile_##n(void *args) { return compile_through(n, args); }
ENTRY(0) ENTRY(1) ENTRY(2) ENTRY(3) ENTRY(4) ENTRY(5) ENTRY(6) ENTRY(7)
static const call_t entries[max_tables] = {compile_0, compile_1, compile_2, compile_3, compile_4, compile_5, compile_6, compile_7};

// mergekit_find_api returns the table of functions of a plugin that is loaded already, null if it has none that is long enough.
void *mergekit_find_api(const char *path) {
	void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	if (!handle) return NULL;
	void *(*get)(void) = (void *(*)(void))dlsym(handle, "GetPjrtApi");
	void **api = get ? get() : NULL;
	dlclose(handle); // the one who loaded it holds it
	if (!api || *(size_t *)api < (at_deserialize_and_load + 1) * sizeof(void *)) return NULL;
	if (!api[at_compile] || !api[at_serialize] || !api[at_get_executable] || !api[at_deserialize_and_load] || !api[at_executable_destroy]) return NULL;
	return api;
}

// mergekit_hook puts the cache in the place of the table's function for compiling. It returns 0 if it cannot.
int mergekit_hook(void *table) {
	void **api = table;
	int done = 0;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < n_tables; i++)
		if (tables[i].api == api) done = 1;
	if (!done && n_tables < max_tables) {
		// The table may lie in memory that is read-only by now.
		size_t page = (size_t)sysconf(_SC_PAGESIZE);
		uintptr_t at = (uintptr_t)&api[at_compile];
		if (mprotect((void *)(at & ~(page - 1)), page, PROT_READ | PROT_WRITE) == 0) {
			tables[n_tables].api = api;
			tables[n_tables].compile = (call_t)api[at_compile];
			api[at_compile] = (void *)entries[n_tables];
			n_tables++;
			done = 1;
		}
	}
	pthread_mutex_unlock(&lock);
	return done;
}
