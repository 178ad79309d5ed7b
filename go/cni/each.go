package cni

import (
	"errors"
	"sync"
)

// eacher does something for each number below a count, and returns the errors.
type eacher func(count int, act func(int) error) error

// together does all at once, and all of them.
func together(count int, act func(int) error) error {
	errs := make([]error, count)
	var group sync.WaitGroup
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			errs[i] = act(i)
		}()
	}
	group.Wait()
	return joined(errs)
}

// oneByOne ends with the first error.
func oneByOne(count int, act func(int) error) error {
	for i := range count {
		if err := act(i); err != nil {
			return err
		}
	}
	return nil
}

// joined is the error itself where there is but one.
func joined(errs []error) error {
	var some []error
	for _, err := range errs {
		if err != nil {
			some = append(some, err)
		}
	}
	if len(some) == 1 {
		return some[0]
	}
	return errors.Join(some...)
}
