package soup

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// parallel calls do for 0 ... n-1 from several goroutines. worker makes what one of them works with. The error is that of the first call, by
// its number, that failed.
func parallel(n int, worker func() func(k int) error) error {
	if n == 1 {
		return worker()(0)
	}
	errs := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			do := worker()
			for !failed.Load() {
				k := int(next.Add(1)) - 1
				if k >= n {
					return
				}
				if errs[k] = do(k); errs[k] != nil {
					failed.Store(true)
				}
			}
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
