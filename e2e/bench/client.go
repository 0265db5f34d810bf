package bench

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Connect returns a client of the cluster of a kubeconfig file that does not hold a burst of requests back.
func Connect(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}

	config.QPS, config.Burst = 1000, 1000
	return kubernetes.NewForConfig(config)
}
