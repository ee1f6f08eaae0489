package backend

// wheel is a pinned file of a package index, and what to take from it.
type wheel struct {
	pkg, file string // the package and its file
	sha256    string
	size      int64 // bytes of the file
	// from is the member to extract and to its place below the directory; with a "/" at their ends they are trees.
	from, to string
}

// plugin is all that one plugin needs. Its own wheel comes last: once the plugin is there, so are its libraries.
type plugin struct {
	wheels []wheel
	path   string            // of the plugin below the directory
	links  map[string]string // links below the directory, by name
}

// pins are the plugins that fit the go-xla in go.mod, for linux/amd64.
var pins = map[string]plugin{
	// Built from the XLA of jaxlib 0.11.2.
	"cpu": {
		path: "pjrt_c_api_cpu_plugin.so",
		wheels: []wheel{
			{pkg: "lammps-jax-pjrt-cpu", file: "lammps_jax_pjrt_cpu-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
				sha256: "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1", size: 62711338, from: "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so", to: "pjrt_c_api_cpu_plugin.so"},
		},
	},
	// JAX's own plugin with the libraries of CUDA 13.0, which every driver for CUDA 13 runs. The plugin looks for them in
	// ../nvidia as seen from itself, so it is installed in nvidia too.
	"cuda": {
		path: "nvidia/pjrt_c_api_cuda_plugin.so",
		wheels: []wheel{
			{pkg: "nvidia-cublas", file: "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
				sha256: "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171", size: 423133236, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cuda-cupti", file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
				sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8", size: 10715597, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cuda-nvcc", file: "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
				sha256: "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03", size: 37384532, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cuda-nvrtc", file: "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
				sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575", size: 90215200, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cuda-runtime", file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
				sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", size: 2243632, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cudnn-cu13", file: "nvidia_cudnn_cu13-9.15.1.9-py3-none-manylinux_2_27_x86_64.whl",
				sha256: "ebc9a647918df0d7298d67cfaf41579fd4c78ead9aba246f5ad9414d61b9ec4c", size: 351298418, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cufft", file: "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
				sha256: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3", size: 214085489, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cusolver", file: "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
				sha256: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112", size: 200941980, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-cusparse", file: "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
				sha256: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b", size: 145942937, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-nccl-cu13", file: "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
				sha256: "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42", size: 196493177, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-nvjitlink", file: "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
				sha256: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b", size: 40713933, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-nvshmem-cu13", file: "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
				sha256: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80", size: 60412546, from: "nvidia/", to: "nvidia/"},
			{pkg: "nvidia-nvvm", file: "nvidia_nvvm-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
				sha256: "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0", size: 61601415, from: "nvidia/", to: "nvidia/"},
			{pkg: "jax-cuda13-pjrt", file: "jax_cuda13_pjrt-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
				sha256: "e5ff589d43064913bb74027682d89639c7ea48f9f81c2bae6fc75117e913f93e", size: 134162640, from: "jax_plugins/xla_cuda13/xla_cuda_plugin.so", to: "nvidia/pjrt_c_api_cuda_plugin.so"},
		},
		// XLA looks for these two directly below nvidia.
		links: map[string]string{"nvidia/bin": "cu13/bin", "nvidia/nvvm": "cu13/nvvm"},
	},
}
