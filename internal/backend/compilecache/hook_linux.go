//go:build cgo && linux

package compilecache

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "hook.h"
*/
import "C"

import (
	"sync"
	"unsafe"
)

var (
	mu     sync.Mutex
	stores = map[unsafe.Pointer]*store{} // by the plugin's table of functions
)

// Install makes the plugin at path, which is loaded already, compile through the cache. It reports whether it does.
func Install(path string) bool {
	s := newStore(path)
	if s == nil {
		return false
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	api := C.mergekit_find_api(name)
	if api == nil {
		return false
	}
	mu.Lock()
	defer mu.Unlock()
	stores[api] = s
	return C.mergekit_hook(api) != 0
}

func storeOf(api unsafe.Pointer) *store {
	mu.Lock()
	defer mu.Unlock()
	return stores[api]
}

//export mergekitCacheLoad
func mergekitCacheLoad(api unsafe.Pointer, code unsafe.Pointer, codeSize C.size_t, options unsafe.Pointer, optionsSize C.size_t, size *C.size_t) unsafe.Pointer {
	s := storeOf(api)
	if s == nil {
		return nil
	}
	data := s.load(unsafe.Slice((*byte)(code), codeSize), unsafe.Slice((*byte)(options), optionsSize))
	if len(data) == 0 {
		return nil
	}
	*size = C.size_t(len(data))
	return C.CBytes(data)
}

//export mergekitCacheSave
func mergekitCacheSave(api unsafe.Pointer, code unsafe.Pointer, codeSize C.size_t, options unsafe.Pointer, optionsSize C.size_t, data unsafe.Pointer, size C.size_t) {
	if s := storeOf(api); s != nil {
		s.save(unsafe.Slice((*byte)(code), codeSize), unsafe.Slice((*byte)(options), optionsSize), unsafe.Slice((*byte)(data), size))
	}
}

//export mergekitCacheCount
func mergekitCacheCount(fromCache C.int) {
	if fromCache != 0 {
		loaded.Add(1)
	} else {
		compiled.Add(1)
	}
}
